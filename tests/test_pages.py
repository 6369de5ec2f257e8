"""Every page of the documentation, and README, runs as it stands: jobs, commands and snippets, in order."""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from pages import DOCS, FENCE, ROOT, Reader, parts
from yahoo_server import Listing, YahooServer, calm_and_wild

from forecaster import SampleSource, load_prices
from forecaster.calendars import Calendars

TESTED_ELSEWHERE = {
    "kernels.md": "tests/test_docs.py",
    "speed.md": "tests/test_docs.py",
    "prices.md": "tests/test_ingest.py",
    "examples/index.md": "tests/test_examples.py",
    **{
        f"how-to/{name}.md": "tests/test_how_to.py"
        for name in ("scheduling", "postgresql", "cluster", "mlflow")
    },
}
GENERATED = {"reference/commands.md", "reference/job.md"}
READ_ONLY = {"operations.md", "how-to/dashboard.md", "report.md"}
"""Their commands serve until they are stopped, take minutes, or need an evening's results: only read here."""
TEXTS = {
    name: path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
    if (name := path.relative_to(DOCS).as_posix()) not in TESTED_ELSEWHERE.keys() | GENERATED
}


@pytest.mark.parametrize("page", [page for page, text in TEXTS.items() if parts(text)])
def test_a_page_runs_as_it_stands(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Reader(monkeypatch, read_only=page in READ_ONLY) as reader:
        reader.read(TEXTS[page])


def test_a_page_that_is_tested_elsewhere_is() -> None:
    for page, test in TESTED_ELSEWHERE.items():
        assert (DOCS / page).is_file()
        assert Path(page).stem in (ROOT / test).read_text(encoding="utf-8"), page


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("```sh\nforecaster nightly job.yaml\n```\n", "No such command"),
        ("```sh\nforecaster daily job.yaml --asof 2024-01-02\n```\n", "No such option"),
        ("```sh\nsudo cp configs/deploy/other.service /etc\n```\n", "other.service"),
        ("```sh\nrm -r /tmp/x\n```\n", "nobody knows how to type"),
        ("```python\n1 +\n```\n", "invalid syntax"),
        ("```yaml\nhorizon: [1]\n```\n", "horizons"),
        ("```ruby\n1\n```\n", "ruby"),
    ],
)
def test_what_cannot_be_typed_is_found(
    page: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        Reader(monkeypatch, read_only=True) as reader,
        pytest.raises((Exception, AssertionError), match=said),
    ):
        reader.read(page)


# --- README -------------------------------------------------------------------------------------------------

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Reader(monkeypatch, read_only=True) as reader:
        reader.read(README)
    assert sorted(path.name for path in tmp_path.glob("*.yaml")) == ["mine.yaml", "tech.yaml"]


def section(name: str) -> str:
    return README.split(f"\n## {name}\n")[1].split("\n## ")[0]


def write_prices(path: Path) -> None:
    """What the reader has: here two indices that come with a package."""
    prices = load_prices(SampleSource(("SP500", "NASDAQ"), None), (), 400)
    tables = [frame[["close"]].assign(symbol=symbol) for symbol, frame in prices.frames.items()]
    table = pd.concat(tables).rename_axis("session").reset_index()
    table[table["session"] >= "2008-01-01"].to_csv(path, index=False)


def test_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_prices(Path("prices.csv"))
    with Reader(monkeypatch) as reader:
        for kind, body in parts(section("Your own prices")):
            if kind == "yaml":
                Path(body.split()[1]).write_text(body)
        reader.read(section("In Python"))
    assert "QuantileForecast(2 origins; horizons 1, 5, 21; 23 levels, with tails)" in capsys.readouterr().out


@pytest.mark.slow
def test_the_readme_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_prices(Path("prices.csv"))
    until = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=2)
    days = [day.date() for day in Calendars().sessions("AAPL", datetime.date(2010, 1, 4), until)]
    listings = {symbol: Listing(calm_and_wild(days)) for symbol in ("AAPL", "MSFT", "^GSPC")}
    with YahooServer(listings) as yahoo, Reader(monkeypatch) as reader:
        monkeypatch.setenv("FORECASTER_YAHOO_GATEWAY", yahoo.url)
        reader.read(README)
    for made in ("mine/report.html", "mine/verdict.csv", "tech/report.html", "ledger.db"):
        assert Path("workspace", made).is_file(), made
    assert Path("tonight/forecasts.parquet").is_file()
    assert Path("today.xlsx").is_file()


def test_what_the_readme_says_of_speed_is_what_was_measured() -> None:
    said = {
        name: figure
        for figure, name in re.findall(
            r"([\d.]+) times as fast as [^(]+\(`(\w+)`\)", " ".join(README.split())
        )
    }
    table = dict(
        re.findall(r"^\| .+ \(`(\w+)`\) \| ([\d.]+) \|", (DOCS / "speed.md").read_text(), re.MULTILINE)
    )
    assert set(said) == {"train_vs_keras_fit", "train_vs_neuralforecast"}
    assert {name: table[name] for name in said} == said
    production = re.search(
        r"default network of a job it is ([\d.]+) and ([\d.]+) times", " ".join(README.split())
    )
    assert production
    assert list(production.groups()) == [table[f"{name}_production"] for name in said]


def test_what_the_readme_says_it_found_is_in_the_results() -> None:
    rows = [line for line in section("What it found on real data").splitlines() if line.startswith("| ")][1:]
    results = (DOCS / "results.md").read_text(encoding="utf-8")
    assert len(rows) == 8
    for row in rows:
        assert f"\n{row} " in results, row


def test_the_versions_that_were_compared_are_those_that_are_measured() -> None:
    pinned = (ROOT / "requirements-peers.lock").read_text(encoding="utf-8")
    for name in ("neuralforecast", "darts"):
        (version,) = re.findall(rf"^{name}==(\S+)", pinned, re.MULTILINE)
        assert f" {name} {version} |" in section("How it compares")


# --- all pages ----------------------------------------------------------------------------------------------


def test_links_of_every_page_lead_somewhere() -> None:
    for path in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        text = FENCE.sub("", path.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)#]+?)(?:#[\w-]+)?\)", text):
            assert "://" in target or (path.parent / target).exists(), f"{path.name}: {target}"


def test_every_page_is_in_the_navigation_and_there() -> None:
    named = re.findall(r'= "([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8"))
    assert sorted(named) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_the_terms_of_the_glossary_are_in_order_and_explained() -> None:
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^\*\*(.+)\*\*\n:   \S", text, re.MULTILINE)
    assert terms == sorted(terms, key=str.lower)
    assert len(terms) == text.count("\n**")


def test_the_reference_is_that_of_the_code(tmp_path: Path) -> None:
    code = "import runpy, sys; from pathlib import Path; "
    code += f"runpy.run_path({str(DOCS / 'make_reference.py')!r})['main'](Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=ROOT)
    for name in GENERATED:
        made = (tmp_path / Path(name).name).read_text(encoding="utf-8")
        assert made == (DOCS / name).read_text(encoding="utf-8"), "run `make docs`"


def test_the_reference_of_python_names_the_public_interface() -> None:
    import forecaster

    text = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    listed = [line.rsplit(".", 1)[1] for line in re.findall(r"^::: (\S+)$", text, re.MULTILINE)]
    assert sorted(listed) == forecaster.__all__


def test_the_site_is_built_without_a_broken_link_and_asks_nothing_of_the_network(tmp_path: Path) -> None:
    text = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    (tmp_path / "zensical.toml").write_text(text.replace('paths = ["."]', f'paths = ["{ROOT}"]'))
    shutil.copytree(DOCS, tmp_path / "docs")
    target = tmp_path / tomllib.loads(text)["project"]["site_dir"]
    done = subprocess.run(
        [Path(sys.executable).with_name("zensical"), "build"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stdout + done.stderr
    pages = list(target.rglob("*.html"))
    assert len(pages) >= len(TEXTS)
    for page in pages:
        asked = re.findall(
            r'<(?:script|link|img|iframe)[^>]+(?:src|href)="?(https?:[^" >]+)', page.read_text()
        )
        assert asked == [], page.name
