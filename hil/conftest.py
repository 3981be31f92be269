"""What the cases share: the board, powered on; MOS on it; vivid; the figures of the report."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mos_hil.board import Board
from mos_hil.counter import Digits
from mos_hil.recorder import Recorder
from mos_hil.report import Report
from mos_hil.vivid import Vivid

HERE = Path(__file__).parent
REPORT = pytest.StashKey[Report]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mos")
    group.addoption("--cuts", type=int, default=None, help="power cuts (what the environment says, else 20)")
    group.addoption("--soak", type=int, default=60, help="seconds of the soak (60; a whole one is 1800)")
    group.addoption("--seed", type=int, default=None, help="of the moments of the cuts (the time)")
    group.addoption("--report", type=Path, default=None, help="folder for report.json and report.txt")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORT] = Report(Path(config.getoption("lg_env") or "no environment").stem)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    outcome = yield
    result = outcome.get_result()
    item.config.stash[REPORT].take(result)
    if result.failed:
        # At once: a run takes long, and pytest keeps its own words to the end.
        terminal = item.config.pluginmanager.get_plugin("terminalreporter")
        terminal.ensure_newline()
        terminal.write_line(f"{result.when} of {result.nodeid}: {item.config.stash[REPORT].why(result.nodeid)}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    folder = session.config.getoption("report")
    if folder:
        session.config.stash[REPORT].write(folder)


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    terminalreporter.write_line("")
    terminalreporter.write(config.stash[REPORT].text())


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> dict:
    """What a case measured; goes into the report whatever its verdict."""
    return request.config.stash[REPORT].figures(request.node.nodeid)


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    given = request.config.getoption("seed")
    return given if given is not None else int(time.time())


@pytest.fixture(scope="session")
def machine(env, target) -> Iterator[Board]:
    options = env.config.data.get("options", {})
    board = Board(target, options, Path(env.config.base))
    board.blank_data_disk()
    yield board
    if board.on and board.virtual:
        board.cut_power()


@pytest.fixture
def board(machine: Board) -> Board:
    """Powered on, whatever the case before left behind."""
    if machine.on and not machine.answers():
        print("the board of the case before answers no more: it is booted anew")
        machine.cut_power()
    if not machine.on:
        machine.boot()
    return machine


@pytest.fixture
def recorder(board: Board, figures: dict) -> Iterator[Recorder]:
    recorder = Recorder(board)
    recorder.clean()
    yield recorder
    if recorder.asked_again:
        figures["asked_again"] = recorder.asked_again
    if board.on:
        print(recorder.log())
        recorder.end()


@pytest.fixture
def vivid(board: Board) -> Vivid:
    vivid = Vivid(board)
    vivid.load()
    return vivid


@pytest.fixture(scope="session")
def digits(machine: Board, tmp_path_factory: pytest.TempPathFactory) -> Digits:
    if not machine.on:
        machine.boot()
    vivid = Vivid(machine)
    vivid.load()
    return vivid.learn_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def options(env) -> dict:
    """What the environment says of its target, beside features."""
    return env.config.data["targets"]["main"].get("options", {})
