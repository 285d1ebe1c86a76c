"""The usage page: totals, charts and a breakdown of any span, from one question to the books."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.db.models import CharField, Value
from django.db.models.functions import Cast
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_safe
from django_htmx.http import push_url

from accounts.api.exports import lines as csv_lines
from accounts.models import ApiKey, Milestone, Team, User
from accounts.queries import teams_of
from accounts.services import milestones
from dashboard.chosen import chosen_team
from dashboard.rounded import NONE
from dashboard.usage_figures import (
    CHARTS,
    Drawing,
    Drawn,
    Line,
    Row,
    Steps,
    across,
    charts,
    joined,
    labels,
    share_of,
    sorted_rows,
    together,
)
from dashboard.usage_question import RANGES, USUAL_SORT, Span, UsageQuestion, title_of
from gateway.ledger import queries
from gateway.ledger.queries import OTHER, By, Dimension, Scope, Sums
from gateway.models import ExchangeRate, TagName

MOST_ROWS: Final = 40
FILTERS: Final[tuple[Dimension, ...]] = ("key", "route", "target", "outcome", "code", "priority")
"""Chosen by a click in the table; the team has a field of its own."""
ID_DIGITS: Final = 19
LONGEST_TAG: Final = (64, 256)
"""Characters of a tag's name and value, as rollups keep them."""
NANOS: Final = Decimal(10**9)
FILE_NAME: Final = "penstock-usage-{}.csv"
COLUMNS: Final[Sequence[tuple[str, str | Promise]]] = (
    ("cost", gettext_lazy("Spend")),
    ("calls", gettext_lazy("Calls")),
    ("refused", gettext_lazy("Refused")),
    ("failed", gettext_lazy("Errors")),
    ("input_tokens", gettext_lazy("Tokens in")),
    ("output_tokens", gettext_lazy("Tokens out")),
    ("p50", gettext_lazy("Latency p50")),
    ("p95", gettext_lazy("p95")),
    ("p99", gettext_lazy("p99")),
    ("first_token", gettext_lazy("First token p95")),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks, and for what."""

    request: HttpRequest
    user: User
    teams: Sequence[Team]
    team: Team | None
    """None: all of them, for an administrator."""
    form: UsageQuestion
    scope: Scope

    @property
    def by(self) -> By:
        """Calls of one tag cannot be told apart by another: each is added up alone."""
        kind, _, name = self.form.by_name.partition(":")
        if kind != "tag":
            return cast(Dimension, kind)
        return ("tag", name) if self.scope.tag is None or self.scope.tag[0] == name else "route"


@dataclass(frozen=True, slots=True)
class Told:
    """One value of the breakdown, point by point."""

    value: str
    now: Sequence[Sums]
    before: Sequence[Sums]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the books say."""

    span: Span
    steps: Steps
    before: Span | None
    """None: it is not compared."""
    told: Sequence[Told]
    """The dearest first."""
    points: Sequence[Sums]
    points_before: Sequence[Sums]


class Choices(NamedTuple):
    """What there is to choose, and what it is called."""

    tags: list[str]
    currencies: list[str]
    keys: dict[str, str]
    """Names by id, of those that are shown."""
    has_seen_costs: bool


@dataclass(frozen=True, slots=True)
class Filter:
    """One that is set."""

    title: str
    value: str
    without: str
    """The page without it."""


@dataclass(frozen=True, slots=True)
class Column:
    """The head of a column that the table can be sorted by."""

    title: str | Promise
    link: str
    direction: str
    """As `aria-sort` says it; empty: the table is sorted by another."""


@require_safe
@login_required
def usage(request: HttpRequest) -> HttpResponse:
    """What a span adds up to, for one team or, to an administrator, for all. Twelve queries at most."""
    asked = _asked(request)
    if asked is None:
        return render(request, "dashboard/no_team.html")
    answer = _answer(asked)
    choices = _choices(asked, _keys_shown(asked, answer))
    asked.form.offer(choices.tags, choices.currencies)
    context = _context(asked, answer, choices)
    if not choices.has_seen_costs and asked.teams and context["total"].sums.cost_nanos:
        milestones.reach(asked.user, Milestone.Name.COST_SEEN)
    response = render(request, "dashboard/usage.html", context, status=422 if asked.form.errors else 200)
    return push_url(response, _link(request))


@require_safe
@login_required
def chart_csv(request: HttpRequest) -> HttpResponse:
    """What one chart of the page draws, exactly: a line for each point, and a column for each series."""
    asked, name = _asked(request), request.GET.get("chart", "")
    if asked is None or name not in CHARTS:
        raise Http404
    answer = _answer(asked)
    names = _names(asked, _choices(asked, _keys_shown(asked, answer)))
    drawn = charts(_drawing(asked, answer, names))[name]
    response = HttpResponse(_csv(answer.steps, drawn, name, _currency(asked)), content_type="text/csv")
    response["Content-Disposition"] = f'attachment; filename="{FILE_NAME.format(name.replace("_", "-"))}"'
    return response


def _asked(request: HttpRequest) -> Asked | None:
    """None: the reader is on no team. Raises Http404."""
    user = cast(User, request.user)
    teams = list(teams_of(user))
    team = chosen_team(teams, request.GET.get("team", ""), user)
    if team is None and not user.is_superuser:
        return None
    form = UsageQuestion(request.GET, all_teams=team is None)
    return Asked(request, user, teams, team, form, _scope(request, team))


def _scope(request: HttpRequest, team: Team | None) -> Scope:
    where = {each: (value,) for each in FILTERS if (value := _text(request, each)[:251])}
    key = where.pop("key", ("",))[0]
    if key.isdecimal() and len(key) < ID_DIGITS:
        where["key"] = (key,)
    name, _, value = _text(request, "tag").partition("=")
    tag = name[: LONGEST_TAG[0]], value[: LONGEST_TAG[1]]
    return Scope(None if team is None else (team.pk,), where, tag if name else None)


def _text(request: HttpRequest, name: str) -> str:
    """Empty if it holds a NUL, which PostgreSQL takes in no text."""
    value = request.GET.get(name, "")
    return "" if "\x00" in value else value


def _answer(asked: Asked) -> Answer:
    """Five queries, and one more for another currency: the period before is of the same question."""
    form, zone = asked.form, asked.form.zone_shown
    wanted = form.span(timezone.now())
    span = Span(*queries.bounds_of(wanted.since, wanted.until))
    steps = Steps.of(span, zone)
    earlier = form.before(span) if form.is_compared else None
    before = Span(*queries.bounds_of(earlier.since, earlier.until)) if earlier else None
    steps_before = Steps.of(before, zone, steps.step) if before else None
    edges, begin = joined(steps_before, steps)
    found = queries.series_by(
        asked.scope, edges, asked.by, form.said("currency"), most=MOST_ROWS, percentiles=True
    )
    until = steps_before.points if steps_before else 0
    told = [Told(value, sums[begin:], sums[:until]) for value, sums in found]
    told.sort(key=lambda each: (each.value == OTHER, -sum(one.cost_nanos for one in each.now)))
    return Answer(
        *(span, steps, before, told),
        points=across([each.now for each in told], steps.points),
        points_before=across([each.before for each in told], until),
    )


def _choices(asked: Asked, key_ids: Collection[str]) -> Choices:
    """One query for all of it."""
    ids = asked.scope.team_ids
    tags, rates = TagName.objects.order_by(), ExchangeRate.objects.order_by()
    tags = tags if ids is None else tags.filter(team_id__in=ids)
    keys = ApiKey.objects.order_by().filter(pk__in=[int(each) for each in key_ids])
    keys = keys if ids is None else keys.filter(team_id__in=ids)
    reached = Milestone.objects.order_by().filter(user=asked.user, name=Milestone.Name.COST_SEEN)
    found = _each("tag", tags, "name").union(
        _each("currency", rates, "base"),
        _each("currency", rates, "quote"),
        _each("key", keys, "name", Cast("pk", CharField())),
        _each("milestone", reached, "name"),
    )
    rows = sorted(found)
    return Choices(
        [value for kind, _, value in rows if kind == "tag"],
        [value for kind, _, value in rows if kind == "currency" and value != settings.LEDGER_CURRENCY],
        {pk: value for kind, pk, value in rows if kind == "key"},
        any(kind == "milestone" for kind, _, _ in rows),
    )


def _each(kind: str, rows: Any, column: str, name: Any = None) -> Any:
    """Rows of three texts."""
    empty = Value("", output_field=CharField())
    return rows.values_list(Value(kind, output_field=CharField()), empty if name is None else name, column)


def _keys_shown(asked: Asked, answer: Answer) -> set[str]:
    """Ids of API keys whose names are needed."""
    found = {each.value for each in answer.told if asked.by == "key" and each.value != OTHER}
    return found | set(asked.scope.where.get("key", ()))


def _names(asked: Asked, choices: Choices) -> Mapping[str, str]:
    """What values are called that are not their own name."""
    if asked.by == "team":
        return {str(each.pk): each.name for each in asked.teams}
    return choices.keys if asked.by == "key" else {}


def _currency(asked: Asked) -> str:
    return asked.form.said("currency") or settings.LEDGER_CURRENCY


# The page


def _context(asked: Asked, answer: Answer, choices: Choices) -> dict[str, Any]:
    names, zone = _names(asked, choices), asked.form.zone_shown
    total = _total(answer)
    told, steps = [labels(answer.steps, zone), answer.steps]
    is_used = any(each.calls or each.refused for each in answer.points)
    behind_since = queries.watermark(asked.scope.team_ids)
    return {
        "teams": asked.teams,
        "team": asked.team,
        "may_see_all": asked.user.is_superuser,
        "form": asked.form,
        "ranges": RANGES.items(),
        "kept": _kept(asked),
        "total": total,
        "latest": answer.points[-1],
        "is_used": is_used,
        "rows": sorted_rows(_rows(asked, answer, names, total.sums), asked.form.sorted_by),
        "points": _points(asked, answer, told),
        "drawn": _shown_charts(asked, answer, names, told) if is_used else {},
        "files": {each: _file(asked, each) for each in CHARTS},
        "step": steps.step,
        "since": answer.span.since.astimezone(zone),
        "until": answer.span.until.astimezone(zone),
        "before": answer.before and Span(*(each.astimezone(zone) for each in _ends(answer.before))),
        "doubts": _doubts(asked, answer, behind_since),
        "zone": asked.form.said("zone") or "UTC",
        "currency": _currency(asked),
        "by_title": title_of(asked.by),
        "name_column": _column(asked, "name", title_of(asked.by)),
        "columns": [_column(asked, name, title) for name, title in COLUMNS],
        "change_column": _column(asked, "change", _("Change")),
        "filters": _filters(asked, choices.keys),
        "behind_since": behind_since,
        "export": _export(asked, answer),
        "calls": _behind(asked, answer.span),
    }


def _ends(span: Span) -> tuple[datetime, datetime]:
    return span.since, span.until


def _total(answer: Answer) -> Row:
    before = together(answer.points_before) if answer.before else None
    return Row("", together(answer.points), before=before)


def _rows(asked: Asked, answer: Answer, names: Mapping[str, str], total: Sums) -> list[Row]:
    found = []
    for each in answer.told:
        sums = together(each.now)
        found.append(
            Row(
                names.get(each.value, each.value),
                sums,
                each.value,
                before=together(each.before) if answer.before else None,
                share=share_of(sums, total),
                link=_narrowed(asked, each.value),
                calls=_behind(asked, answer.span, each.value),
            )
        )
    return found


def _points(asked: Asked, answer: Answer, told: Sequence[str]) -> list[Row]:
    edges = answer.steps.edges
    spans = [Span(*each) for each in pairwise(edges)]
    return [
        Row(name, sums, calls=_behind(asked, span))
        for name, sums, span in zip(told, answer.points, spans, strict=True)
    ]


def _drawing(asked: Asked, answer: Answer, names: Mapping[str, str]) -> Drawing:
    told = [
        Drawn(names.get(each.value, each.value) or NONE, each.now, _behind(asked, None, each.value))
        for each in answer.told
    ]
    return Drawing(told, answer.points, answer.points_before)


def _shown_charts(
    asked: Asked, answer: Answer, names: Mapping[str, str], told: Sequence[str]
) -> dict[str, Any]:
    found = charts(_drawing(asked, answer, names))
    return {
        "labels": told,
        "edges": [_moment(each) for each in answer.steps.edges],
        "step": answer.steps.step,
        "zone": asked.form.said("zone") or "UTC",
        "calls": _behind(asked, None),
        "charts": {name: [asdict(each) for each in lines] for name, lines in found.items()},
    }


def _column(asked: Asked, name: str, title: str | Promise) -> Column:
    """A click sorts by it, the largest first; a second one the other way round."""
    falling, rising = ("-" + name, name) if name != "name" else (name, "-" + name)
    now = asked.form.sorted_by
    link = _link(asked.request, sort=rising if now == falling else falling)
    if now.removeprefix("-") != name:
        return Column(title, link, "")
    return Column(title, link, "descending" if now.startswith("-") else "ascending")


def _kept(asked: Asked) -> dict[str, str]:
    """What the form has no field for, and sends along."""
    get = asked.request.GET.get
    found = {name: get(name, "") for name in (*FILTERS, "tag")}
    sort = asked.form.sorted_by
    return {name: value for name, value in found.items() if value} | (
        {} if sort == USUAL_SORT else {"sort": sort}
    )


def _narrowed(asked: Asked, value: str) -> str:
    """The page for one value alone; empty where there is none."""
    if value in (OTHER, ""):
        return ""
    if asked.by == "team":
        slugs = {str(each.pk): each.slug for each in asked.teams}
        return _link(asked.request, team=slugs[value], by="") if value in slugs else ""
    if isinstance(asked.by, tuple):
        return _link(asked.request, tag=f"{asked.by[1]}={value}")
    return _link(asked.request, **{asked.by: value})


def _filters(asked: Asked, key_names: Mapping[str, str]) -> list[Filter]:
    names = {("key", pk): name for pk, name in key_names.items()}
    found = [
        Filter(title_of(name), names.get((name, values[0]), values[0]), _link(asked.request, **{name: ""}))
        for name, values in asked.scope.where.items()
    ]
    if asked.scope.tag:
        name, value = asked.scope.tag
        found.append(Filter(title_of(("tag", name)), value, _link(asked.request, tag="")))
    return found


def _doubts(asked: Asked, answer: Answer, behind_since: datetime | None) -> list[str]:
    """Why the period before may be more than is known of it."""
    if answer.before is None:
        return []
    found = [*_since_when(asked, answer.before), *_without_cost(together(answer.points_before))]
    if behind_since is not None and behind_since < answer.before.until:
        found.append(_("Not all of its calls are added up yet."))
    if asked.scope.tag or isinstance(asked.by, tuple):
        found.append(_("Calls count by a tag only since its name was declared."))
    return found


def _since_when(asked: Asked, before: Span) -> Iterator[str]:
    teams = asked.teams if asked.team is None else [asked.team]
    first = min((each.created_at for each in teams), default=before.since)
    if first > before.since:
        made = first.astimezone(asked.form.zone_shown)
        yield _("Nothing is on the books before %(moment)s.") % {"moment": f"{made:%Y-%m-%d %H:%M}"}


def _without_cost(sums: Sums) -> Iterator[str]:
    if days := len(sums.no_rate_on):
        yield (
            ngettext("There is no exchange rate on %d day.", "There is no exchange rate on %d days.", days)
            % days
        )
    if calls := sums.unpriced:
        yield ngettext("%d call had no price.", "%d calls had no price.", calls) % calls


# Addresses


def _link(request: HttpRequest, **changed: str) -> str:
    """The page with the same question, some of it changed. What goes without saying is not said."""
    asked = {**request.GET.dict(), **changed}
    if asked.get("range") != "custom":
        asked |= {"since": "", "until": ""}  # fields of the form that show what any other span means
    if asked.get("by") == "route":
        asked["by"] = ""
    said = urlencode({name: value for name, value in asked.items() if value})
    return f"{request.path}?{said}" if said else request.path


def _behind(asked: Asked, span: Span | None, value: str | None = None) -> str:
    """The list of the calls of a span that are of one value; `span` None: a moment is yet to be added.

    Empty for all others together, and for those that have no value.
    """
    if value in (OTHER, ""):
        return ""
    said: dict[str, str] = {name: values[0] for name, values in asked.scope.where.items()}
    if asked.team:
        said["team"] = asked.team.slug
    if asked.scope.tag:
        said["tag"] = "=".join(asked.scope.tag)
    if value is not None:
        said |= _of_value(asked, value)
    if span:
        said |= {"since": _moment(span.since), "until": _moment(span.until)}
    path = reverse("refusals" if said.get("outcome") == "refused" else "calls")
    said = {name: each for name, each in said.items() if each and (name, each) != ("outcome", "refused")}
    return f"{path}?{urlencode(said)}"


def _of_value(asked: Asked, value: str) -> dict[str, str]:
    if isinstance(asked.by, tuple):
        return {"tag": f"{asked.by[1]}={value}"}
    if asked.by == "team":
        return {"team": next((each.slug for each in asked.teams if str(each.pk) == value), "")}
    return {asked.by: value}


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _export(asked: Asked, answer: Answer) -> str:
    """The same question, as the API's export takes it."""
    by, scope = asked.by, asked.scope
    said: dict[str, Any] = {
        "since": answer.span.since.astimezone(UTC).isoformat(),
        "until": answer.span.until.astimezone(UTC).isoformat(),
        "team": scope.team_ids or (),
        "by": ":".join(by) if isinstance(by, tuple) else by,
        "zone": asked.form.said("zone"),
        "currency": asked.form.said("currency"),
        "tag": "=".join(scope.tag or ()),
    }
    said = {name: value for name, value in said.items() if value} | dict(scope.where)
    return f"{reverse('api:export_usage')}?{urlencode(said, doseq=True)}"


def _file(asked: Asked, chart: str) -> str:
    said = {name: value for name, value in asked.request.GET.items() if value and name != "sort"}
    return f"{reverse('usage_chart')}?{urlencode(said | {'chart': chart})}"


# A chart's file


def _csv(steps: Steps, drawn: Sequence[Line], chart: str, currency: str) -> str:
    names = [f"{each.name} ({currency})" if chart == "spend" else each.name for each in drawn]
    columns = [list(_exact(each, chart)) for each in drawn]
    spans = enumerate(pairwise(steps.edges))
    rows = ((*span, *(each[place] for each in columns)) for place, span in spans)
    return csv_lines([("since", "until", *names), *rows])


def _exact(line: Line, chart: str) -> Iterator[Any]:
    """Money in units of the currency, durations in microseconds, rates as shares of 1."""
    for each in line.data:
        yield each / NANOS if chart == "spend" and isinstance(each, int) else each
