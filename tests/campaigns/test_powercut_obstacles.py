"""A sample of what goes wrong besides the power, and the oracle's own proof."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from host_sim.campaigns.powercut.bench import Bench, Cut
from host_sim.campaigns.powercut.campaign import Examiner
from host_sim.campaigns.powercut.dimensions import DIMENSIONS, Dimensions, parse_step
from host_sim.campaigns.powercut.ends import FOLDER, Ends, Node, node_tree
from host_sim.campaigns.powercut.mishaps import Mishap, obstacles
from host_sim.errors import SimError


@pytest.fixture(scope="module", params=[False, True], ids=["flash", "frozen"])
def examiner(request) -> Iterator[Examiner]:
    with Bench(frozen=request.param) as bench:
        yield Examiner(bench)


def scenario_of(examiner: Examiner, name: str):
    found = examiner.bench.scenarios
    return found.get(name) or found[name + "+frozen"]


# -- a sample of each dimension ------------------------------------------------------------------


@pytest.mark.few(1)
@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("name", ["few", "nested"])
def test_sampled_mishaps(examiner: Examiner, name: str, dimension: str):
    """All of them are `powercut --obstacles --full --bits`."""
    scenario = scenario_of(examiner, name)
    cases = list(examiner.dimensions.cases(scenario, dimension))
    chosen = random.Random(f"{name}:{dimension}").sample(cases, 6)
    tally = examiner.suffer(f"{scenario.name}/{mishap}" for mishap in chosen)
    assert tally.cuts == 6
    assert tally.failures == []


@pytest.mark.slow
def test_sampled_mishaps_with_a_cut(examiner: Examiner):
    tally = examiner.mix(scenario_of(examiner, "few").name, list(DIMENSIONS), 8, seed=1)
    assert tally.cuts == 8
    assert tally.failures == []


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "case",
    [
        # The new code on trial, and the old application at its hooks.
        "few/@on-trial,folder,:d:old.txt",
        "few/@on-trial,file,:d",
        "nested/@on-trial,gone,:x:y",
        "nested/@at-first,folder,:a:b:replaced.txt",
        "nested/@at-last,file,:n1",
        "few/@at-commit,made,:d:add.txt",
        "few/@at-commit,gone,:d:old.txt",
        # What was found before there was a campaign for it.
        "few/@trial,folder,:main.py",
        "long/@trial,brim",
        "few/@commit,bit,:.ota:attempts,3",
    ],
)
def test_what_used_to_be_no_way_back(examiner: Examiner, case: str):
    name, rest = case.split("/")
    case = f"{scenario_of(examiner, name).name}/{rest}"
    assert examiner.suffer([case]).failures == []


# -- phases and ids ------------------------------------------------------------------------------


@pytest.mark.few(1)
def test_a_phase_is_what_its_name_says(examiner: Examiner):
    dimensions, scenario = examiner.dimensions, scenario_of(examiner, "few")
    _, judge = examiner.bench.flashed(scenario)
    stages, trees = {}, {}
    for name in ("staged", "commit", "mid", "trial", "trial2", "back", "midback", "owed"):
        snapshot = dimensions.phase(scenario, name)
        assert snapshot
        stages[name] = dimensions.stage(scenario, snapshot)
        trees[name] = judge.which(snapshot.image)[:5]
    assert stages == {
        "staged": "staging",
        "commit": "commit",
        "mid": "commit",
        "trial": "trial",
        "trial2": "trial",
        "back": "back",
        "midback": "back",
        "owed": "closed",
    }
    assert trees["staged"] == trees["commit"] == trees["owed"] == "old"
    assert trees["trial"] == trees["trial2"] == trees["back"] == "new"
    assert trees["mid"] == trees["midback"] == "mixed"


@pytest.mark.parametrize(
    "text",
    [
        "@trial,folder,:d:old.txt",
        "@now,bit,:.ota:state,17",
        "@at-first,gone,:d",
        "@back,brim",
        "@commit,half,:.ota:journal",
    ],
)
def test_an_id_is_read_as_it_is_written(text: str):
    step = parse_step(text)
    assert isinstance(step, Mishap)
    assert str(step) == text
    assert str(parse_step("17.bits.17")) == str(Cut(17, "bits", 17))


@pytest.mark.parametrize(
    "text",
    ["@", "@trial", "@nowhere,gone,:a", "@trial,odd,:a", "@trial,gone", "@trial,bit,:.ota:x,y"],
)
def test_an_id_that_means_nothing_is_refused(text: str):
    with pytest.raises(SimError):
        parse_step(text)


def test_a_replay_needs_what_it_names(examiner: Examiner):
    name = scenario_of(examiner, "one").name
    for wrong in (f"{name}/@back,brim", f"{name}/@trial,brim/99999.none", "nowhere/@trial,brim"):
        with pytest.raises(SimError):
            examiner.replay(wrong)


def test_every_path_of_a_package_meets_every_obstacle():
    tree: Node = {"/d": FOLDER, "/d/f": b"f", "/main.py": b"", "/.ota": FOLDER, "/.ota/0~": b"f"}
    found = {(m.kind, m.path) for m in obstacles("trial", "trial", tree, ["/d/f", "/n/new"])}
    assert found == {
        *((kind, "/d") for kind in ("gone", "away", "file")),
        *((kind, "/d/f") for kind in ("gone", "away", "folder")),
        *((kind, path) for kind in ("made", "folder") for path in ("/n", "/n/new")),
        ("gone", "/.ota/0~"),
        ("folder", "/.ota/0~"),
    }


def test_the_mishap_is_on_flash(examiner: Examiner):
    """Each kind, run by nobody's application, leaves what it says."""
    dimensions, scenario = examiner.dimensions, scenario_of(examiner, "few")
    snapshot = dimensions.phase(scenario, "trial")
    assert snapshot
    before = dimensions.tree(scenario, snapshot.image)

    def after(text: str) -> Node:
        code = Mishap.parse("@trial," + text).code()
        return dimensions.tree(scenario, examiner.bench.change(snapshot.image, code))

    tree = after("folder,:d:old.txt")
    assert tree["/d/old.txt"] == FOLDER
    assert any(path.startswith("/d/old.txt/") for path in tree)
    assert after("file,:d")["/d"] == b"in the way"
    assert {p for p in after("gone,:n") if p.startswith("/n")} == set()
    tree = after("away,:n")
    assert "/n" not in tree and tree["/n.away/m/in.txt"] == b"in"
    assert after("made,:other:path")["/other/path"] == b"made meanwhile"
    state = before["/.ota/state"]
    flipped = after("bit,:.ota:state,17")["/.ota/state"]
    assert isinstance(state, bytes) and isinstance(flipped, bytes)
    assert [n for n in range(len(state)) if state[n] != flipped[n]] == [2]
    assert after("half,:.ota:state")["/.ota/state"] == state[: len(state) // 2]
    assert after("empty,:.ota:state")["/.ota/state"] == b""
    full = examiner.bench.change(snapshot.image, Mishap.parse("@trial,brim").code())
    more = examiner.bench.change(
        full, "try:\n    open('/more', 'w').write('x' * 9000)\nexcept OSError:\n    pass\n"
    )
    assert dimensions.tree(scenario, more).get("/more", b"") == b""


# -- the oracle ----------------------------------------------------------------------------------

OLD = {"/main.py": b"1", "/d/r": b"old", "/d/u": b"u", "/gone": b"g"}
NEW = {"/main.py": b"2", "/d/r": b"new", "/d/u": b"u", "/n/a": b"add"}


def folders_of(files: dict[str, bytes]) -> set[str]:
    return {path[: path.rfind("/")] for path in files if path.count("/") > 1}


def whole(files: dict[str, bytes]) -> Node:
    return node_tree(files, folders_of(files))


def end(stage: str, base: Node, author: Node, path: str, found: Node, report: str, **how):
    """What the oracle says of the tree `found` with `report` as its end."""
    trees = {"old": (OLD, folders_of(OLD)), "new": (NEW, folders_of(NEW))}
    judge = SimpleNamespace(tree=trees.get, everything=lambda _image: found)
    ends = Ends(judge, base, author, stage=stage, path=path, **how)  # type: ignore[arg-type]
    event, _, text = report.partition(" ")
    text = f',{{"n":"m","vs":"{text}"}}' if text else ""
    payload = f'[{{"n":"e","v":{event}}},{{"n":"i","vs":"id"}}{text}]'
    wrong, not_whole = ends.judge(b"", [payload.encode()], "id")
    return wrong[0].partition(": ")[0] if wrong else "not whole" if not_whole else "right"


BACK = "2 rolled back: 3 boots without confirm"
NOT_WHOLE = "2 rolled back, but not whole: /d/r"
EARLY = "2 can not apply: something is in the way"


def test_obstacles_of_new_code_go_and_its_own_files_stay():
    base = whole(NEW)
    blocked = base | {"/d/r": FOLDER, "/d/r/x": b"mine", "/log.txt": b"log"}
    kept = {"/.ota": FOLDER, "/.ota/1~": b"old"}

    def says(found: Node, report: str = BACK) -> str:
        return end("trial", base | kept, blocked | kept, "/d/r", found, report)

    old = whole(OLD)
    assert says(old | {"/log.txt": b"log"}) == "right"
    assert says(old) == "mixed tree with e:2"  # a file of its own was lost
    assert says(old | {"/log.txt": b"log", "/n": FOLDER}) == "mixed tree with e:2"
    assert says(blocked) == "new tree with e:2"
    assert says(old | {"/d/r": FOLDER, "/log.txt": b"log"}) == "mixed tree with e:2"
    assert says(old | {"/log.txt": b"log"}, NOT_WHOLE) == "not whole without need"
    assert says(blocked, "1") == "right"
    assert says(old | {"/log.txt": b"log"}, "1") == "old tree with e:1"
    assert says(old | {"/log.txt": b"log"}, "2 whatever") == "unexpected reason"


def test_what_the_old_application_did_is_kept():
    base = whole(OLD)
    made = base | {"/n": FOLDER, "/n/a": b"mine"}
    gone = {path: state for path, state in base.items() if path != "/d/r"}

    def says(author: Node, path: str, found: Node, report: str) -> str:
        return end("commit", base, author, path, found, report)

    assert says(made, "/n/a", made, EARLY) == "right"
    assert says(made, "/n/a", whole(NEW), "1") == "right"
    assert says(made, "/n/a", whole(NEW) | {"/n/a": b"mine"}, "1") == "mixed tree with e:1"
    assert says(gone, "/d/r", gone, EARLY) == "right"
    assert says(gone, "/d/r", base, EARLY) == "right"
    assert says(gone, "/d/r", gone | {"/main.py": b"2"}, EARLY) == "mixed tree with e:2"
    assert says(gone, "/d/r", gone, NOT_WHOLE) == "not whole"
    assert says(made, "/n/a", base, EARLY) == "the application lost what it made"


def test_not_whole_is_for_what_is_gone_for_good():
    base = whole(OLD)
    gone = {path: state for path, state in base.items() if path != "/d/r"}
    kept = gone | {"/.ota": FOLDER, "/.ota/1~": b"old"}
    assert end("back", base, gone, "/d/r", gone, NOT_WHOLE) == "not whole"
    assert end("back", base, gone, "/d/r", gone, BACK) == "mixed tree with e:2"
    assert end("back", base, kept, "/d/r", gone, NOT_WHOLE) == "not whole without need"
    assert end("back", base, gone, "/d/r", base, "1") == "no report"


def test_what_is_there_twice_costs_nothing():
    base = whole(OLD)
    where = "/.ota/journal"
    assert end("back", base, base, where, base, NOT_WHOLE, inside=True) == "not whole without need"
    assert end("back", base, base, "/.ota/3", base, NOT_WHOLE, inside=True) == "not whole"
    damaged = "2 rolled back: damaged"
    assert end("back", base, base, where, base, damaged, inside=True) == "right"
    assert end("back", base, base, where, base, damaged, inside=True, bit=True) == (
        "unexpected reason"
    )


def test_what_nobody_can_do_is_not_tried(examiner: Examiner):
    """No application runs in the middle of a move, and nobody can know of a lost member there."""
    dimensions, scenario = examiner.dimensions, scenario_of(examiner, "few")
    found = {str(m) for name in ("obstacles", "full") for m in dimensions.cases(scenario, name)}
    for phase in ("mid", "back", "midback"):
        at = [case for case in found if case.startswith(f"@{phase},")]
        assert at and all(",:.ota:" in case for case in at)
    assert {"@commit,gone,:.ota:1", "@commit,folder,:.ota:0"} <= found
    assert "@commit,gone,:.ota:0" not in found


def test_what_may_run_meanwhile():
    base = whole(NEW)
    author = base | {"/d/r": FOLDER}
    trees = {"old": (OLD, folders_of(OLD)), "new": (NEW, folders_of(NEW))}
    found: Node = {}
    judge = SimpleNamespace(tree=trees.get, everything=lambda _image: found)
    ends = Ends(judge, base, author, stage="trial", path="/d/r")  # type: ignore[arg-type]
    for tree, verdict in (
        (author, "new"),
        (base, "new"),
        (whole(OLD), "old"),
        (author | {"/main.py": b"1"}, "mixed"),
        (whole(OLD) | {"/n": FOLDER, "/n/a": b"add"}, "mixed"),
    ):
        found.clear()
        found |= tree
        assert ends.which(b"").partition(" ")[0] == verdict


def test_a_good_update_is_followed_by_another(examiner: Examiner):
    """What judges the next package sees one that is not installed."""
    scenario = scenario_of(examiner, "few")
    dimensions: Dimensions = examiner.dimensions
    case = f"{scenario.name}/@owed,gone,:.ota:journal"
    assert examiner.suffer([case]).failures == []
    serve = examiner.bench.platform.begin
    examiner.bench.platform.begin = lambda state, package: serve(state, package[:-1] + b"x")  # type: ignore
    try:
        outcome = dimensions.examine(case)
    finally:
        examiner.bench.platform.begin = serve  # type: ignore
    assert outcome.wrong
