"""What the live page keeps, as its own module does it."""

import pytest

# Static files are handed on as Django's own file iterators, of which it warns under ASGI.
pytestmark = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")

PAUSED_FOR = """async (seconds) => {
  const { Store } = await import("/static/live-store.js");
  const store = new Store();
  const takeUpTo = (last) => {
    for (let id = store.lastId + 1; id <= last; id++) {
      const frame = { id, routes: { "gpt-4o": [1] }, total: [1], refused: { too_fast: 1 } };
      frame.under_way = [0, 2, 0, 0, 0, 0];
      store.take({ kind: "frame", id, frame, calls: [{ id: `call ${id}` }], under_way_from: 1 });
    }
  };
  const said = ({ lastId, total, routes, underWay, refusals, calls }) => [
    ...[total, routes.get("gpt-4o")].map((series) => series.sum("calls", 1000, 900)),
    ...[lastId, underWay.at(500, 1), refusals, calls[0].id],
  ];
  takeUpTo(1000);
  const [before, paused] = [said(store), store.frozen()];
  takeUpTo(1000 + seconds);
  return [before, said(paused), store.lastId];
}"""


async def test_a_copy_for_a_paused_page_stays_as_it_is_however_long_the_pause(site, browser):
    page = await browser.new_page()
    await page.goto(f"{site.origin}/accounts/login/")

    before, paused, last_id = await page.evaluate(PAUSED_FOR, 1500)

    assert before == [900, 900, 1000, 2, [["too_fast", 900]], "call 1000"]
    assert paused == before
    assert last_id == 2500
