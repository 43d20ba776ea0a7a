"""The page in a real headless Chromium: it opens without an error, asks for nothing, plays, and can be used.

Chromium and its driver are the system's (Debian: ``apt-get install chromium chromium-driver``). Where they are missing
these tests fail: a page that nobody has opened is not known to work.
"""

import json
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.slow

SIZES = (360, 1440)
THEMES = ("light", "dark")
ALL_OPEN = "document.querySelectorAll('details').forEach(each => each.open = true)"

CONTRASTS = """
const parts = color => color.match(/[\\d.]+/g).map(Number);
const light = color => parts(color).slice(0, 3).map(part => part / 255)
  .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
  .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
const behind = element => {
  for (let each = element; each; each = each.parentElement) {
    const color = getComputedStyle(each).backgroundColor, alpha = parts(color)[3];
    if (alpha === undefined || alpha === 1) return color;
    if (alpha !== 0) throw new Error('half transparent: ' + color);
  }
  return 'rgb(255, 255, 255)';
};
const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
while (words.nextNode()) {
  const element = words.currentNode.parentElement;
  if (!words.currentNode.data.trim() || !element.checkVisibility()) continue;
  const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((x, y) => y - x);
  found.push([(a + 0.05) / (b + 0.05), element.tagName + '.' + element.className]);
}
return found;
"""

FOCUSABLE = """
return [...document.querySelectorAll('a[href], summary, audio[controls], [tabindex="0"]')]
  .filter(each => each.checkVisibility()).map((each, i) => { each.dataset.stop = i; return i; });
"""


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.binary_location = found("chromium", "chromium-browser", "google-chrome")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found("chromedriver")))
    yield driver
    driver.quit()


def found(*names):
    paths = [path for name in names if (path := shutil.which(name))]
    assert paths, f"{names[0]} is not installed; apt-get install chromium chromium-driver"
    return paths[0]


def show(browser, files, width=1440, theme="light"):
    """Open a page afresh; what the browser logged before is dropped."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": theme}, {"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get("about:blank")
    logs(browser)
    browser.get(files.page.as_uri())


def logs(browser):
    """Messages of the console, and addresses asked for, since the last time."""
    console = [entry["message"] for entry in browser.get_log("browser")]
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
    return console, asked


class Listener(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """Notes what it is asked for."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", SIZES)
def test_opens_without_an_error_and_asks_for_nothing(browser, everything, width, theme):
    show(browser, everything, width, theme)
    browser.execute_script(ALL_OPEN)
    time.sleep(0.5)
    console, asked = logs(browser)
    assert console == []
    assert [url for url in asked if not url.startswith("data:")] == [everything.page.as_uri()]


def test_errors_and_requests_would_be_noticed(browser, server, tmp_path):
    """The same look at a page that has them."""
    page = tmp_path / "bad.html"
    page.write_text(f'<img src="http://127.0.0.1:{server.server_port}/x.png"><script>throw new Error("oh")</script>')
    browser.get("about:blank")
    logs(browser)
    browser.get(page.as_uri())
    console, asked = logs(browser)
    assert any("oh" in message for message in console)
    assert f"http://127.0.0.1:{server.server_port}/x.png" in asked
    assert server.asked


def test_even_what_is_put_into_the_page_reaches_no_network(browser, server, everything):
    show(browser, everything)
    url = f"http://127.0.0.1:{server.server_port}"
    outcome = browser.execute_async_script(
        """
        const [url, done] = arguments, picture = new Image(), script = document.createElement('script');
        script.textContent = 'window.ran = true';
        document.body.append(script);
        picture.onload = () => done('loaded');
        picture.onerror = () => fetch(url + '/f').then(() => done('fetched'), () => done(window.ran ? 'ran' : 'refused'));
        picture.src = url + '/p';
        """,
        url,
    )
    assert outcome == "refused"
    assert server.asked == []


@pytest.mark.parametrize("theme", THEMES)
def test_plots_are_there(browser, everything, theme):
    show(browser, everything, theme=theme)
    pictures = browser.execute_script(
        "return [...document.images].map(each => [each.complete, each.naturalWidth, each.naturalHeight, each.width, "
        "each.currentSrc.slice(0, 19), each.currentSrc === each.src])"
    )
    assert len(pictures) == everything.figures
    for complete, width, height, shown, kind, is_light in pictures:
        assert complete
        assert min(width, height) > 150
        assert shown > 200
        assert kind == "data:image/svg+xml;"
        assert is_light == (theme == "light")


def test_a_plot_shows_something(browser, everything):
    """Its pixels are not all alike."""
    show(browser, everything)
    colors = browser.execute_script(
        """
        return [...document.images].map(picture => {
          const canvas = document.createElement('canvas');
          canvas.width = picture.naturalWidth; canvas.height = picture.naturalHeight;
          const context = canvas.getContext('2d');
          context.drawImage(picture, 0, 0);
          return new Set(new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size;
        });
        """
    )
    assert min(colors) > 20


@pytest.mark.parametrize("width", SIZES)
def test_clips_play(browser, everything, width):
    show(browser, everything, width)
    browser.execute_script(ALL_OPEN)
    players = browser.find_elements(By.TAG_NAME, "audio")
    assert len(players) == everything.clips
    for player in players:
        state = wait(lambda p=player: browser.execute_script(
            "const p = arguments[0]; return p.readyState >= 1 && [p.duration, p.error, p.paused]", p))  # fmt: skip
        assert state == [pytest.approx(1.0, abs=0.05), None, True]  # there, and silent until it is asked
    player = players[0]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", player)
    # The button that a hand would press, at the left of the player.
    left = -player.size["width"] // 2 + 24
    ActionChains(browser).move_to_element_with_offset(player, left, 0).click().perform()
    played = wait(lambda: browser.execute_script("return arguments[0].currentTime > 0.2", player))
    assert played
    assert browser.execute_script("return arguments[0].error", player) is None


def wait(look, seconds=10):
    """What `look` sees as soon as it sees something."""
    end = time.monotonic() + seconds
    while not (seen := look()) and time.monotonic() < end:
        time.sleep(0.05)
    return seen


@pytest.mark.parametrize("report", ["everything", "alone"])
@pytest.mark.parametrize("width", SIZES)
def test_nothing_sticks_out(browser, request, report, width):
    show(browser, request.getfixturevalue(report), width)
    browser.execute_script(ALL_OPEN)
    reach, room = browser.execute_script("const e = document.documentElement; return [e.scrollWidth, e.clientWidth]")
    assert reach <= room <= width
    out = browser.execute_script(
        "return [...document.querySelectorAll('main *')].filter(each => !each.closest('.scroll') && each.checkVisibility() "
        "&& each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML.slice(0, 80))"
    )
    assert out == []


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", SIZES)
def test_words_can_be_read(browser, everything, width, theme):
    """WCAG AA: every word's contrast to what is behind it is 4.5 or more."""
    show(browser, everything, width, theme)
    browser.execute_script(ALL_OPEN)
    contrasts = browser.execute_script(CONTRASTS)
    assert len(contrasts) > 300
    assert [each for each in contrasts if each[0] < 4.5] == []
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (int(background.removeprefix("rgb(").split(",")[0]) < 128) == (theme == "dark")


def test_low_contrast_would_be_noticed(browser, everything):
    show(browser, everything)
    browser.execute_script("document.querySelector('h1').style.color = 'rgb(200, 200, 200)'")
    assert min(browser.execute_script(CONTRASTS))[1] == "H1."


@pytest.mark.parametrize("width", SIZES)
def test_everything_can_be_reached_by_keyboard_and_seen_to_be(browser, alone, width):
    show(browser, alone, width)
    browser.execute_script(ALL_OPEN)
    missing = set(browser.execute_script(FOCUSABLE))
    assert len(missing) > 15
    for _ in range(4 * len(missing)):  # a player has several stops
        if not missing:
            break
        ActionChains(browser).send_keys(Keys.TAB).perform()
        stop, outline, tag = browser.execute_script(
            "const e = document.activeElement, s = getComputedStyle(e); return [e.dataset.stop ?? null, "
            "s.outlineStyle === 'none' ? 0 : parseFloat(s.outlineWidth), e.outerHTML.slice(0, 60)]"
        )
        if stop is not None:
            missing.discard(int(stop))
            assert outline >= 2, tag
    assert missing == set()


def test_groups_open_by_keyboard_without_a_script(browser, alone):
    show(browser, alone)
    group = browser.find_elements(By.CSS_SELECTOR, "details.group")[1]
    assert not group.get_attribute("open")
    group.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    assert group.get_attribute("open")
    assert group.find_element(By.TAG_NAME, "article").is_displayed()


@pytest.mark.parametrize(("width", "columns"), [(360, 1), (1440, 2)])
def test_speech_stands_left_of_text_or_above_it(browser, everything, width, columns):
    show(browser, everything, width)
    pair = browser.find_element(By.CSS_SELECTOR, "details[open] .pair")
    speech, text = pair.find_elements(By.CSS_SELECTOR, ".said")
    assert "heard" in speech.text
    assert "read" in text.text
    if columns == 2:
        assert speech.rect["x"] + speech.rect["width"] <= text.rect["x"]
    else:
        assert speech.rect["y"] + speech.rect["height"] <= text.rect["y"]


def test_still_where_motion_is_not_wanted(browser, everything):
    show(browser, everything)
    assert browser.execute_script("return getComputedStyle(document.documentElement).scrollBehavior") == "auto"
