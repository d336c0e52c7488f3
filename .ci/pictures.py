"""Drawings as a browser shows them: nothing blank, no text outside of its box or over another.

    python .ci/pictures.py FOLDER [mermaid.min.js]

Needs the program `dot` of Graphviz, Chromium, and of Python packages graphviz and matplotlib. Each
picture is left in FOLDER as SVG and as a screenshot, to be looked at. With Mermaid's bundle its
texts are rendered too.
"""

import html
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from matplotlib import image

import gpugrad as gg

CHECK = """
const box = e => { const b = e.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom] }
const size = b => Math.max(0, b[2] - b[0]) * Math.max(0, b[3] - b[1])
const both = (a, b) => [Math.max(a[0], b[0]), Math.max(a[1], b[1]),
                        Math.min(a[2], b[2]), Math.min(a[3], b[3])]
const wrong = []
const svg = document.querySelector("svg")
const texts = [...svg.querySelectorAll("text")].filter(t => t.textContent.trim())
const frame = box(svg)
for (const t of texts) {
  const own = box(t), words = t.textContent
  if (size(both(own, frame)) < 0.99 * size(own)) wrong.push(words + ": outside of the picture")
  const node = t.closest("g.node")
  const shapes = node ? [...node.querySelectorAll("polygon, path")].map(box) : []
  const boxes = shapes.filter(b => Math.min(b[2] - b[0], b[3] - b[1]) > 5)
  if (boxes.length && !boxes.some(b => size(both(own, b)) > 0.97 * size(own)))
    wrong.push(words + ": outside of its box")
  for (const u of texts)
    if (u !== t && size(both(own, box(u))) > 0.12 * size(own))
      wrong.push(words + ": over " + u.textContent)
}
if (!texts.length) wrong.push("no text")
const out = document.createElement("script")
out.type = "application/json"; out.id = "found"
out.textContent = JSON.stringify({texts: texts.map(t => t.textContent), wrong})
document.body.append(out)
"""

MERMAID = """
const out = document.createElement("script")
out.type = "application/json"; out.id = "found"
mermaid.initialize({startOnLoad: false, securityLevel: "strict"})
mermaid.run().then(() => document.querySelectorAll(".nodeLabel, .edgeLabel"), () => []).then(a => {
  const texts = [...a].map(e => e.textContent)
  out.textContent = JSON.stringify({texts, wrong: texts.length ? [] : ["Mermaid refuses it"]})
  document.body.append(out)
})
"""


def leaf(value):
    return gg.asarray(value, requires_grad=True)


def two_two_one(direction="right"):
    w1, w2, w3, w4, w5, w6 = map(leaf, (0.15, 0.2, 0.25, 0.3, 0.4, 0.45))
    b1, b2 = leaf(0.35), leaf(0.6)
    x1, x2, target = map(gg.asarray, (0.05, 0.1, 0.01))
    with gg.keep_values():
        h1 = gg.sigmoid(w1 * x1 + w2 * x2 + b1)
        h2 = gg.sigmoid(w3 * x1 + w4 * x2 + b1)
        o1 = gg.sigmoid(w5 * h1 + w6 * h2 + b2)
        cost = (o1 - target) ** 2
    return gg.draw(cost, direction=direction)


def hinge():
    w, phi, y = leaf([0.5, -1.0]), gg.asarray([2.0, 1.0]), gg.asarray(1.0)
    with gg.keep_values():
        margin = (w @ phi) * y
        loss = gg.maximum(0.0, 1 - margin)
    return gg.draw(loss)


def mnist():
    sigmoid = gg.nn.Sigmoid()
    net = gg.nn.Sequential(gg.nn.Linear(784, 100), sigmoid, gg.nn.Linear(100, 10), sigmoid)
    images, targets = gg.ones((32, 784), dtype="float32"), gg.zeros((32, 10), dtype="float32")
    with gg.name_scope("net"):
        out = net(images)
    return gg.draw(gg.nn.mean_squared_error(out, targets))


def folded():
    layers = [m for _ in range(12) for m in (gg.nn.Linear(64, 64), gg.nn.Tanh())]
    net = gg.nn.Sequential(*layers, gg.nn.Linear(64, 10))
    images, labels = gg.ones((8, 64), dtype="float32"), gg.zeros(8, dtype="int64")
    with gg.name_scope("net"):
        out = net(images)
    return gg.draw(gg.nn.cross_entropy(out, labels), depth=1)


def large():
    x = y = leaf(0.5)
    for i in range(2500):
        y = gg.sin(y) * x if i % 2 else y + gg.cos(x)
    return gg.draw(y)


def hard_names():
    name = 'a "b" <i>c</i> & |{x}| `y` #1; \\ %% end'
    x = leaf(2.0)
    with gg.name_scope(name):
        y = x * x
    return gg.draw({name: y}, names={name: x})


PICTURES = {
    "two_two_one": two_two_one,
    "two_two_one_up": lambda: two_two_one("up"),
    "two_two_one_down": lambda: two_two_one("down"),
    "hinge": hinge,
    "mnist": mnist,
    "folded": folded,
    "large": large,
    "hard_names": hard_names,
}


def chromium(page, *options):
    """What Chromium prints."""
    with tempfile.TemporaryDirectory() as profile:
        command = [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--virtual-time-budget=20000",
            f"--user-data-dir={profile}",
            *options,
            page.resolve().as_uri(),
        ]
        done = subprocess.run(command, check=True, capture_output=True, timeout=120)
        return done.stdout.decode()


def look(page, body, width, height):
    """Problems on a page, and its texts."""
    page.write_text(f'<!doctype html><meta charset="utf-8"><body style="margin:0">{body}')
    shot = page.with_suffix(".png")
    chromium(page, f"--screenshot={shot}", f"--window-size={width},{height}")
    match = re.search(r'id="found">(.*?)</script>', chromium(page, "--dump-dom"), re.DOTALL)
    found = json.loads(match[1]) if match else {"wrong": ["the page was not finished"], "texts": []}
    if image.imread(shot)[..., :3].std() < 0.01:
        found["wrong"].append("the page is blank")
    return found["wrong"], found["texts"]


def main(folder, bundle=None):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name, make in PICTURES.items():
        drawing = make()
        drawing.save(folder / f"{name}.svg")
        svg = drawing.svg[drawing.svg.index("<svg") :]
        size = re.search(r'width="(\d+)pt" height="(\d+)pt"', svg)
        width, height = (min(int(n) * 4 // 3 + 40, 16000) for n in size.groups())
        pages = {name: (svg + f"<script>{CHECK}</script>", max(width, 500), max(height, 200))}
        if bundle:
            source = Path(bundle).resolve().as_uri()
            text = f'<pre class="mermaid">{html.escape(drawing.mermaid)}</pre>'
            pages[f"{name}_mermaid"] = (
                f'{text}<script src="{source}"></script><script>{MERMAID}</script>',
                2000,
                1200,
            )
        for title, page in pages.items():
            wrong, texts = look(folder / f"{title}.html", *page)
            failed += bool(wrong)
            print(f"{title:28} {'FAILED' if wrong else 'passed'}  {len(texts)} texts")
            for line in wrong[:10]:
                print(f"    {line}")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(*sys.argv[1:])))
