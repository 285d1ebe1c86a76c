"""In which order the live page draws its pieces, as its own module does it."""

import pytest

# Static files are handed on as Django's own file iterators, of which it warns under ASGI.
pytestmark = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")

A_FRAME_A_TURN = """async () => {
  const { Turns } = await import("/static/live-turns.js");
  const [turns, done] = [new Turns(), []];
  const frame = () => new Promise(requestAnimationFrame);
  for (const turn of "abcd") {
    turns.take([1, 2, 3].map((piece) => () => done.push(`${turn}${piece}`)));
    await frame();
  }
  for (let left = 20; left; left--) await frame();
  return done;
}"""


async def test_on_a_slow_page_a_turn_that_was_begun_ends_and_the_newest_is_next(site, browser):
    page = await browser.new_page()
    await page.goto(f"{site.origin}/accounts/login/")

    done = await page.evaluate(A_FRAME_A_TURN)

    assert done == ["a1", "a2", "a3", "c1", "c2", "c3", "d1", "d2", "d3"]
