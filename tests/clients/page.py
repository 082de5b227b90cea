"""The page of a real server, clicked and typed at in headless Chromium.

    python tests/clients/page.py target/release/pagewise models/abacus chromium-headless-shell
        [--screenshot docs/page.png] [--level avx512]
"""
import argparse
import json
import math
import os
import statistics
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from browser import Browser
from check import serve

PAINT_MS, WEIGHT_BYTES, CONTRAST = 300, 100_000, 4.5
LOADS = 5
QUESTION = "What is 347 + 285?"
STORY = ("Ines has 66 pencils. Alice gives Ines 31 more, and then Ines finds 55. "
         "How many pencils does Ines have now?")
SEED = 7
USUAL = {"temperature": "1", "max-tokens": "128", "seed": str(SEED)}
# Drawn so hot that hardly anything ends it, and with this seed nothing does.
ENDLESS = {"temperature": "100", "max-tokens": "900", "seed": "10"}
PHONE, DESK = (360, 740), (1280, 860)

ANSWERED = "!document.querySelector('[aria-busy]') && document.querySelector('article .token')"
TOKENS = "document.querySelectorAll('.token')"
CARD = "document.getElementById('token')"


def post(url, body, key="none"):
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    address, body = f"{url}/v1/chat/completions", json.dumps(body).encode()
    request = urllib.request.Request(address, body, headers)
    return json.load(urllib.request.urlopen(request, timeout=300))


@contextmanager
def served(binary, model, *options):
    """A server on a port of its own, gone afterwards."""
    process, listening = serve(binary, model, *options)
    url = f"http://{listening['http']}"
    try:
        yield url
    finally:
        process.terminate()
        assert process.wait(60) == 0


@contextmanager
def load(url, askers=4):
    """Others who ask meanwhile, all of them the same."""
    body = {"messages": [{"role": "user", "content": "What is 27 + 15? " * 8}], "n": 8,
            "max_tokens": 200, "ignore_eos": True}
    ended = threading.Event()

    def ask():
        while not ended.is_set():
            post(url, body)
    threads = [threading.Thread(target=ask) for _ in range(askers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def field(browser, name, text):
    """Writes a text into a field, as somebody does who selects what is there."""
    browser.point(f"document.getElementById('{name}')", click=True)
    browser.run(f"document.getElementById('{name}').select()")
    browser.type(text) if text else browser.run(f"document.getElementById('{name}').value = ''")


def paint(browser, url, level):
    """First paints in milliseconds, and the bytes of one load, as figures for bench-record."""
    first = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    paints = []
    for _ in range(LOADS):
        browser.open(url)
        paints.append(browser.until(first))
    files = browser.run("""performance.getEntries()
        .filter((entry) => ["navigation", "resource"].includes(entry.entryType))
        .filter((entry) => entry.initiatorType !== "fetch")
        .map((entry) => [entry.name, entry.transferSize])""")
    weight = sum(size for _, size in files)
    assert len(files) >= 3 and all(size > 0 for _, size in files), files
    # The least: what else the machine does makes a paint later, and nothing makes one earlier.
    assert min(paints) <= PAINT_MS, paints
    assert weight <= WEIGHT_BYTES, files
    for what, unit, value in (("first paint", "ms", statistics.median(paints)), ("weight", "bytes", weight)):
        print(f"figure serving,page {what},{level},{os.cpu_count()},,,{unit},{value:.0f},,")


def asking(browser, url):
    """By the mouse: an answer is streamed, and its tokens say what the API says."""
    browser.until("document.getElementById('state').textContent === 'ready'")
    assert "abacus" in browser.run("document.getElementById('model').textContent")
    browser.run("""(() => {
        window.counts = new Set();
        new MutationObserver(() => counts.add(document.querySelectorAll(".token").length))
            .observe(document.getElementById("turns"), {childList: true, subtree: true});
    })()""")
    for name, text in USUAL.items():
        field(browser, name, text)
    browser.point("document.getElementById('question')", click=True)
    browser.type(QUESTION)
    browser.point("document.getElementById('send')", click=True)
    browser.until(ANSWERED)
    assert browser.run("counts.size") > 3, "the answer came at once"
    asked = {"messages": [{"role": "user", "content": QUESTION}], "seed": SEED, "temperature": 1,
             "max_tokens": 128, "logprobs": True, "top_logprobs": 5}
    choice = post(url, asked)["choices"][0]
    said, entries = choice["message"]["content"], choice["logprobs"]["content"]
    spoken = browser.run("document.getElementById('told').textContent")
    assert spoken.startswith(said), (spoken, said)
    shown = browser.run(f"[...{TOKENS}].map((token) => token.textContent)")
    assert shown == [entry["token"] for entry in entries], shown
    for at in (0, len(entries) // 2, len(entries) - 1):
        browser.point(f"{TOKENS}[{at}]")
        told(browser, entries[at])
    browser.press("Escape")
    assert browser.run(f"{CARD}.hidden")


def told(browser, entry):
    """The card is in sight and tells of this token, in the digits of the API."""
    browser.until(f"!{CARD}.hidden")
    score = browser.run(f"{CARD}.innerText.match(/log-probability (\\S+)/)[1]")
    assert float(score) == entry["logprob"], (score, entry)
    shares = browser.run(f"""[...{CARD}.querySelectorAll('li span')]
        .map((share) => parseFloat(share.textContent) / 100)""")
    wanted = [math.exp(other["logprob"]) for other in entry["top_logprobs"]]
    assert len(shares) == len(wanted) == 5
    assert all(abs(a - b) <= 0.005 * b + 1e-12 for a, b in zip(shares, wanted)), (shares, wanted)
    box = browser.run(f"(() => {{ const box = {CARD}.getBoundingClientRect();"
                      "return [box.left, box.right - innerWidth, -box.height]; })()")
    assert box[0] >= 0 and box[1] <= 0 and box[2] < 0, box


def keyboard(browser):
    """With keys alone: everything is reached, seen and named; a question is asked, a token read."""
    browser.point("document.getElementById('clear')", click=True)
    browser.press("Enter", shift=True)
    browser.type(QUESTION)
    assert browser.run("document.getElementById('question').value") == f"\n{QUESTION}"
    browser.press("Enter")
    browser.until(ANSWERED)
    fields = "[...document.querySelectorAll('input, textarea')]"
    assert browser.run(f"{fields}.every((field) => field.labels.length > 0)")
    wanted = set(browser.run("""[...document.querySelectorAll("input, textarea, button, [tabindex='0']")]
        .filter((element) => !element.disabled && element.checkVisibility())
        .map((element, at) => element.dataset.at = String(at))"""))
    browser.point("document.querySelector('h1')", click=True)
    reached, first = [], None
    for _ in range(len(wanted) + 1):
        browser.press("Tab")
        at, style = browser.run("""[document.activeElement.dataset.at,
            getComputedStyle(document.activeElement).outlineStyle]""")
        if at is None or at in reached:
            break
        assert style != "none", f"element {at} has the focus, and nobody sees it"
        reached.append(at)
        if browser.run("document.activeElement.matches('.token')"):
            first = browser.run(f"[{CARD}.hidden, {CARD}.innerText]")
            browser.press("ArrowRight")
            second = browser.run(f"[{CARD}.hidden, {CARD}.innerText]")
            assert not first[0] and not second[0] and first[1] != second[1], (first, second)
            browser.press("ArrowLeft")
    assert first and set(reached) == wanted, (reached, wanted)


def stopping(browser, url):
    """An answer is stopped; then the engine rests."""
    browser.point("document.getElementById('clear')", click=True)
    for name, text in ENDLESS.items():
        field(browser, name, text)
    browser.media(prefers_reduced_motion="reduce")
    # Beside others it takes its time.
    with load(url):
        browser.point("document.getElementById('question')", click=True)
        browser.type(QUESTION)
        browser.press("Enter")
        browser.until(f"{TOKENS}.length > 8")
        still = browser.run("document.getAnimations().length")
        browser.media()
        moving = browser.run("document.getAnimations().length")
        assert (still, moving) == (0, 1), "the caret blinks for those alone who do not mind"
        browser.point("document.getElementById('stop')", click=True)
        browser.until(ANSWERED)
    course = browser.run("document.querySelector('.course').textContent")
    assert course.startswith("stopped") and browser.run(f"{TOKENS}.length") < 900, course
    assert browser.run("document.activeElement.id") == "question"
    browser.until("document.querySelectorAll('#charts dd')[3].textContent === '0'")
    for name, text in USUAL.items():
        field(browser, name, text)


def charts(browser, url):
    """Under load each chart has a line, and a number that is not zero."""
    first = """[...document.querySelectorAll('#charts dl')]
        .map((list) => list.querySelector('dd').textContent)"""
    with load(url):
        browser.until(f"{first}.every((text) => parseFloat(text) > 0)")
        numbers = browser.run(first)
    lines = browser.run("""[...document.querySelectorAll('#charts path:first-child')]
        .map((line) => line.getAttribute('d'))""")
    assert len(lines) == 5 and all("H" in line for line in lines), lines
    print("charts:", ", ".join(numbers))


# The contrast of a text with what is behind it, by WCAG's sums.
CONTRASTS = """(() => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const luminance = (color) => {
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        const parts = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3)
            .map((part) => part / 255)
            .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    };
    const behind = (element) => {
        const color = getComputedStyle(element).backgroundColor;
        const clear = /, 0\\)$|\\/ 0\\)$/.test(color);
        return clear && element.parentElement ? behind(element.parentElement) : color;
    };
    const seen = ["body", "#model", "#state", "h2", "label", ".keys", "#send", "#clear",
        "#question", ".answer", ".course", "dt", "dd", ".top"];
    return seen.map((name) => {
        const element = document.querySelector(name);
        const [a, b] = [getComputedStyle(element).color, behind(element)].map(luminance);
        return [name, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
})()"""


def looks(browser):
    """It is readable in both schemes, and fits a phone."""
    papers = []
    for scheme in "light", "dark":
        browser.media(prefers_color_scheme=scheme)
        papers.append(browser.run("getComputedStyle(document.body).backgroundColor"))
        faint = [pair for pair in browser.run(CONTRASTS) if pair[1] < CONTRAST]
        assert not faint, (scheme, faint)
    assert papers[0] != papers[1], papers
    browser.media()
    browser.window(*PHONE)
    width = browser.until(f"innerWidth === {PHONE[0]} && document.documentElement.scrollWidth")
    assert width <= PHONE[0], width
    browser.point(f"{TOKENS}[{TOKENS}.length - 1]")
    assert browser.run("document.documentElement.scrollWidth") <= PHONE[0]
    browser.press("Escape")
    browser.window(*DESK)


def quiet(browser, url):
    """Nothing broke, and nobody else was asked."""
    broken = browser.told("Runtime.exceptionThrown", "Log.entryAdded")
    broken += [call for call in browser.told("Runtime.consoleAPICalled") if call["type"] == "error"]
    assert not broken, broken
    asked = {event["request"]["url"] for event in browser.told("Network.requestWillBeSent")}
    own = (f"{url}/", "data:", "about:")
    elsewhere = [address for address in asked if not address.startswith(own)]
    assert asked and not elsewhere, elsewhere


def refusals(browser, binary, model):
    """What is refused is told in words; a key is asked for and used."""
    field(browser, "temperature", "hot")
    browser.point("document.getElementById('question')", click=True)
    browser.type("1 + 1")
    browser.press("Enter")
    browser.until("document.getElementById('error').textContent.includes('temperature')")
    assert browser.run("document.getElementById('question').value") == "1 + 1"
    with served(binary, model, "--api-key", "secret") as url:
        browser.open(url)
        browser.until("!document.getElementById('key').hidden")
        field(browser, "key-text", "secret")
        browser.press("Enter")
        browser.until("document.getElementById('state').textContent === 'ready'")
        assert browser.run("document.getElementById('key').hidden")
        browser.type(QUESTION)
        browser.press("Enter")
        browser.until(ANSWERED)
    browser.until("document.getElementById('state').textContent === 'does not answer'")


def screenshot(browser, url, path):
    """Writes what the page looks like after two minutes of load, with the least likely token told."""
    browser.point("document.getElementById('clear')", click=True)
    for askers in (1, 3, 5, 2, 8, 4, 16, 6):
        with load(url, askers):
            time.sleep(14)
            if askers == 6:
                browser.type(STORY)
                browser.press("Enter")
                browser.until(ANSWERED)
                browser.point(f"""[...{TOKENS}]
                    .reduce((a, b) => a.entry.logprob < b.entry.logprob ? a : b)""")
                browser.picture(path)
    browser.press("Escape")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("binary")
    arguments.add_argument("model")
    arguments.add_argument("browser")
    arguments.add_argument("--screenshot", type=Path)
    arguments.add_argument("--level", default="", help="how bench-record calls the level of the kernels")
    given = arguments.parse_args()
    browser = Browser(given.browser)
    try:
        with served(given.binary, given.model) as url:
            browser.window(*DESK)
            paint(browser, url, given.level)
            asking(browser, url)
            keyboard(browser)
            stopping(browser, url)
            charts(browser, url)
            if given.screenshot:
                screenshot(browser, url, given.screenshot)
            looks(browser)
            quiet(browser, url)
            refusals(browser, given.binary, given.model)
        print("page: ok")
    finally:
        browser.close()


if __name__ == "__main__":
    main()
