"""The page where a team's owners say by which tags its usage is told apart."""

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from accounts.services import NotPossible
from accounts.views.common import refuse, team_to
from gateway import tag_names


class TagNames(forms.Form):
    """One name a line."""

    names = forms.CharField(
        required=False,
        max_length=2000,
        label=gettext_lazy("Names of tags"),
        widget=forms.Textarea(attrs={"rows": 5, "placeholder": "project\nenvironment"}),
        help_text=gettext_lazy("One a line, at most 10. Calls bring tags in X-Penstock-Tags: project=atlas."),
    )


@login_required
@require_http_methods(["GET", "POST"])
def set_tag_names(request: HttpRequest, slug: str) -> HttpResponse:
    """The names as they are; a POST puts others in their place."""
    team = team_to(request, slug, "manage_members")
    form = TagNames(request.POST or None, initial={"names": "\n".join(tag_names.names_of(team))})
    if request.method == "POST" and form.is_valid():
        wanted = [each for each in form.cleaned_data["names"].splitlines() if each.strip()]
        done = _("The usage of %(name)s is told apart by these tags from now on, kept calls included.") % {
            "name": team.name
        }
        try:
            tag_names.declare(team, wanted)
            messages.success(request, done)
            return redirect("team", slug=slug)
        except NotPossible as why:
            refuse(form, why)
    context = {"team": team, "form": form}
    return render(request, "dashboard/tag_names.html", context, status=422 if form.errors else 200)
