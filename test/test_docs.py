"""The pages say what the code, the shipped configuration and the toy robot say."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from safe_support_ql import config
from safe_support_ql.nodes import native, topics
from safe_support_ql.robots.base import Robot
from safe_support_ql.robots.claims import Claims

ROOT = Path(__file__).resolve().parents[1]
OURS = sorted(path.stem for path in (ROOT / "config").glob("*.yaml"))
PAGES = {name: ROOT / "docs" / f"certificate_{name}.md" for name in OURS}
MARGIN = re.compile(
    r"margin|mismatch|error|disturbance|residual|growth|delay|between|band|allowance|lidar_noise|terminal|_age|_timeout"
)
# Margins that every robot has or says why not (docs/method.md).
REQUIRED = (
    "model residual", "state-estimate error", "actuation delay", "age of the state", "motion between checks",
    "saturation", "lidar",
)  # fmt: skip


def rows(page: str) -> list[list[str]]:
    """Cells of the margin table."""
    lines = page.split("| Margin of the method |")[1].splitlines()[2:]
    table = lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


@pytest.mark.parametrize("name", PAGES)
def test_the_table_gives_every_margin_as_it_is_shipped(name: str) -> None:
    settings = config.load_robot(name)
    parameters = settings.robot.parameters
    units = {field.name: field.metadata["unit"] for field in dataclasses.fields(parameters)}
    listed = {}
    for margin, parameter, value, unit, covers in rows(PAGES[name].read_text()):
        assert covers, margin
        if parameter == "none":
            assert (value, unit) == ("-", "-") and len(covers) > 20, margin
            continue
        key = parameter.strip("`")
        assert parameter == f"`{key}`" and key not in listed, parameter
        listed[key] = (float(value), unit)
    assert listed == {key: (settings.raw["parameters"][key], units[key]) for key in listed}
    assert listed == {key: (getattr(parameters, key), units[key]) for key in listed}
    assert {key for key in units if MARGIN.search(key)} <= set(listed)


@pytest.mark.parametrize("name", PAGES)
def test_no_margin_of_the_method_is_left_out(name: str) -> None:
    kinds = {row[0] for row in rows(PAGES[name].read_text())}
    assert not [kind for kind in REQUIRED if not any(has.startswith(kind) for has in kinds)]


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_names_exists(name: str) -> None:
    page = PAGES[name].read_text()
    code = "\n".join(path.read_text() for path in (ROOT / "safe_support_ql").rglob("*.py"))
    tests = "\n".join(path.read_text() for path in (ROOT / "test").rglob("*.py"))
    functions = {match.split(".")[-1] for match in re.findall(r"`([A-Za-z_.]+)\(\)`", page)}
    assert functions and not [f for f in functions if f"def {f}(" not in code]
    assert not [t for t in re.findall(r"`(test_\w+)`", page) if f"def {t}(" not in tests]
    links = re.findall(r"\]\(([^)#:]+)\)", page)
    assert links and not [link for link in links if not (PAGES[name].parent / link).exists()]


def test_the_method_page_links_to_every_certificate() -> None:
    method = (ROOT / "docs/method.md").read_text()
    assert not [page.name for page in PAGES.values() if f"({page.name})" not in method]


def test_the_example_of_the_readme_runs() -> None:
    (example,) = re.findall(r"```python\n(from .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    ran: dict[str, object] = {}
    exec(example, ran)
    assert ran["certified"] is True and ran["action"] == [4.0]


def test_the_pages_link_to_what_exists() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
        assert not [link for link in links if not (page.parent / link).exists()], page.name


# --- docs/add_a_robot.md ---------------------------------------------------------------------------------------------

ADD_A_ROBOT = ROOT / "docs" / "add_a_robot.md"
TOY = ROOT / "test" / "toy_robot"


def test_code_on_the_page_is_that_of_the_toy_robot() -> None:
    files = [path.read_text() for path in TOY.rglob("*") if path.suffix in (".py", ".toml", ".yaml")]
    blocks = re.findall(r"^```\w+\n(.*?)^```$", ADD_A_ROBOT.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) > 15
    assert not [block for block in blocks if not any(block in text for text in files)]


def test_the_page_leaves_nothing_out_and_names_nothing_that_there_is_not() -> None:
    page = ADD_A_ROBOT.read_text()
    abstract = sorted(Robot.__abstractmethods__)
    assert abstract and not [name for name in abstract if f"`{name}`" not in page and f"def {name}(" not in page]
    claims = [field.name for field in dataclasses.fields(Claims)]
    assert not [name for name in claims if not re.search(rf"[`*]{name}[`*]", page)]
    tests = "\n".join(path.read_text() for path in (ROOT / "test").rglob("test_*.py"))
    assert not [name for name in re.findall(r"`(test_\w+)`", page) if f"def {name}(" not in tests]


def test_the_table_of_topics_has_every_topic_and_no_other() -> None:
    page = (ROOT / "docs" / "topics.md").read_text()
    listed = re.findall(r"^\| `([a-z_/]+)` \|", page, re.MULTILINE)
    named = {value for name, value in vars(topics).items() if name.isupper() and isinstance(value, str)}
    assert sorted(listed) == sorted({name if name != topics.TELEOP else f"{name}cmd_vel" for name in named})
    for line in page.splitlines():
        if kind := re.match(r"\| `([a-z_/]+)` \| ([a-z_]+)/(\w+)", line):
            native.message_class(f"{kind[2]}/msg/{kind[3]}")


def test_rviz_shows_topics_that_are_there() -> None:
    shown = yaml.safe_load((ROOT / "config" / "safe_support_ql.rviz").read_text())["Visualization Manager"]
    entries = [*shown["Displays"], *shown["Tools"]]
    settings = config.load_robot("diff_drive")
    known = {channel.topic or channel.name for channel in settings.robot.channels} | {topics.MARKERS}
    assert {entry["Topic"]["Value"] for entry in entries if "Topic" in entry} == known
    assert shown["Global Options"]["Fixed Frame"] == settings.robot.parameters.odom_frame
