"""A headless Chromium, told what to do by its DevTools protocol."""
import base64
import itertools
import json
import re
import subprocess
import tempfile
import time

from websockets.sync.client import connect

SOON_SECONDS = 30
# Keys that print nothing, and what the protocol asks to know of them.
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37, "End": 35}
SHIFT = 8


class Browser:
    """One tab of a browser of its own."""

    def __init__(self, binary):
        self.folder = tempfile.TemporaryDirectory()
        command = [binary, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                   "--remote-debugging-port=0", f"--user-data-dir={self.folder.name}"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        found = (re.search(r"listening on (ws://\S+)", line) for line in self.process.stderr)
        address = next(match for match in found if match)[1]
        self.socket = connect(address, max_size=None, ping_interval=None)
        self.numbers, self.session, self.events = itertools.count(1), None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in "Page", "Runtime", "Log", "Network":
            self.call(f"{domain}.enable")

    def close(self):
        self.session = None
        self.call("Browser.close")
        self.process.wait(SOON_SECONDS)
        self.folder.cleanup()

    def call(self, method, **params):
        """Sends a command and answers its result; events that come before are kept."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.socket.send(json.dumps(message))
        while True:
            told = json.loads(self.socket.recv(SOON_SECONDS))
            if told.get("id") == number:
                assert "error" not in told, (method, told["error"])
                return told["result"]
            self.events.append(told)

    def told(self, *methods):
        """Parameters of the events of these names so far."""
        return [event["params"] for event in self.events if event.get("method") in methods]

    def run(self, script):
        """The value of an expression of the page."""
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in told, (script, told["exceptionDetails"])
        return told["result"].get("value")

    def until(self, script, seconds=SOON_SECONDS):
        """Waits until an expression holds; its value."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"it does not come to hold: {script}"
            time.sleep(0.02)
        return value

    def open(self, url):
        """Opens a page, with nothing in the cache."""
        self.call("Network.setCacheDisabled", cacheDisabled=True)
        self.call("Page.navigate", url=url)
        there = f"location.href.startsWith({json.dumps(url)})"
        self.until(f"{there} && document.readyState === 'complete'")

    def point(self, element, click=False):
        """Moves the mouse onto the first line of an element, and clicks it if that is asked."""
        x, y = self.run(f"""(() => {{
            const element = {element};
            element.scrollIntoView({{block: "nearest"}});
            const box = element.getClientRects()[0];
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()""")
        kinds = ["mouseMoved"] + (["mousePressed", "mouseReleased"] if click else [])
        for kind in kinds:
            pressed = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **pressed)

    def press(self, key, shift=False):
        """Presses a key and lets it go."""
        code = KEYS[key]
        named = dict(key=key, code=key, windowsVirtualKeyCode=code, modifiers=SHIFT if shift else 0)
        down = dict(type="keyDown", text="\r") if key == "Enter" else dict(type="rawKeyDown")
        self.call("Input.dispatchKeyEvent", **down, **named)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def type(self, text):
        """Types a text where the focus is."""
        self.call("Input.insertText", text=text)

    def media(self, **features):
        """What the reader has asked their system for."""
        named = ((name.replace("_", "-"), value) for name, value in features.items())
        features = [{"name": name, "value": value} for name, value in named]
        self.call("Emulation.setEmulatedMedia", features=features)

    def window(self, width, height, scale=1):
        """The size of the window."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=scale, mobile=width < 600)

    def picture(self, path):
        """Writes what the window shows."""
        taken = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(taken["data"]))
