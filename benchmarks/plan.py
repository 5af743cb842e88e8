"""What is measured, on whom, and where the bar lies: ``PLAN`` is the whole of it."""

from __future__ import annotations

from dataclasses import dataclass

PINS = {
    "dbos": ("dbos==3.4.0",),
    "langgraph": ("langgraph==1.2.22", "langgraph-checkpoint-sqlite==3.1.2"),
    "huey": ("huey==3.5.4",),
    "original": ("--no-deps", "liteflow==0.2.0"),  # its telemetry no longer installs; the subject stands in for it
}

UNITS = {"us": "µs", "ms": "ms", "bytes": "B", "percent": "%", "ratio": "x", "share": "", "encodes": "", "statements": ""}


@dataclass(frozen=True)
class Subject:
    """Who does a work.

    Args:
        name: who it is, as the table says it.
        settings: with which journal mode and synchronous.
        script: what is run, a file of this folder.
        arguments: what it is told.
        peer: in whose environment, a key of ``PINS``; ``None`` for our own.
    """

    name: str
    settings: str
    script: str
    arguments: tuple[str, ...]
    peer: str | None = None


@dataclass(frozen=True)
class Bar:
    """What one reading of LiteFlow must come to; it is reported only when there is no ``most`` and no ``least``.

    Args:
        reading: the name of the reading.
        against: with whom it is compared; ``None`` when the reading itself counts.
        most: the most that the reading, or the ratio to the other's, may be.
        least: the least that it may be.
        faster: whether the ratio is how many times faster LiteFlow is, not how many times the other's reading its own is.
    """

    reading: str
    against: Subject | None = None
    most: float | None = None
    least: float | None = None
    faster: bool = False

    @property
    def unit(self) -> str:
        """What is compared with the limits is counted in this."""
        if self.against is not None:
            return "x faster" if self.faster else "x"
        return UNITS[self.reading.rpartition("_")[2]]

    @property
    def is_asked(self) -> bool:
        """Whether there is a limit to meet."""
        return self.most is not None or self.least is not None

    def ratio(self, own: float, other: float) -> float:
        """Compare LiteFlow's reading with that of the other."""
        return other / own if self.faster else own / other

    def is_met(self, value: float) -> bool | None:
        """Tell whether *value*, a ratio where there is another to compare with, meets the bar; ``None`` where there is none."""
        if not self.is_asked:
            return None
        return (self.most is None or value <= self.most) and (self.least is None or value >= self.least)

    @property
    def says(self) -> str:
        """The bar in the table's words."""
        if not self.is_asked:
            return "reported" if self.against is None else f"reported, {self.unit}"
        sign = "==" if self.most == self.least else ">=" if self.most is None else "<="
        limit = self.least if self.most is None else self.most
        return f"{sign} {limit:g} {self.unit}".rstrip()


@dataclass(frozen=True)
class Work:
    """One work: what LiteFlow does, and its bars, each with whom it is compared.

    Args:
        name: how the command line names it.
        says: what it is, as the table says it.
        own: LiteFlow.
        bars: what is asked of it.
        quick: whether it is measured when there is little time.
    """

    name: str
    says: str
    own: Subject
    bars: tuple[Bar, ...]
    quick: bool = False

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Everybody who does this work, LiteFlow first, each once."""
        others = [bar.against for bar in self.bars if bar.against is not None]
        return tuple(dict.fromkeys([self.own, *others]))


def liteflow(work: str, size: int, *options: str) -> Subject:
    """Return LiteFlow, with its default durability unless *options* say otherwise."""
    full = "full" in options
    name = "LiteFlow full" if full else "LiteFlow"
    synchronous = "FULL" if full else "NORMAL; FULL where the caller is told that it is done"
    return Subject(name, f"WAL, {synchronous}", "works.py", (work, str(size), *options))


def raw(work: str, size: int, *, synchronous: str = "NORMAL", together: int = 1) -> Subject:
    """Return the floor: the same rows by plain ``sqlite3``, with so many tasks to a transaction."""
    if work == "synced_commit":
        return Subject("sqlite3 synced commit", "WAL, FULL", "raw.py", (work, str(size)))
    name = {"NORMAL": "raw sqlite3", "FULL": "raw sqlite3 full"}[synchronous]
    options: tuple[str, ...] = () if synchronous == "NORMAL" else ("--synchronous", synchronous)
    if together > 1:
        name, options = f"{name}, {together} together", (*options, "--together", str(together))
    return Subject(name, f"WAL, {synchronous}", "raw.py", (work, str(size), *options))


def peer(name: str, key: str, size: int, mode: str, settings: str) -> Subject:
    """Return another library, which is given a folder of its own before the size."""
    return Subject(name, settings, f"subjects/peer_{key}.py", ("FOLDER", str(size), mode), key)


LINKS = 1_000  # tasks in a chain
RAW = raw("chain", LINKS)
RAW_FULL = raw("chain", LINKS, synchronous="FULL")
DBOS = peer("DBOS", "dbos", LINKS, "normal", "WAL, NORMAL")
DBOS_FULL = peer("DBOS full", "dbos", LINKS, "full", "WAL, FULL")
DBOS_SHIPPED = peer("DBOS as shipped", "dbos", LINKS, "shipped", "as shipped: DELETE, FULL")
LANGGRAPH = peer("LangGraph", "langgraph", LINKS, "normal", "WAL, NORMAL")
LANGGRAPH_FULL = peer("LangGraph full", "langgraph", LINKS, "full", "WAL, FULL")
HUEY = peer("Huey", "huey", LINKS, "normal", "WAL, NORMAL")
HUEY_FULL = peer("Huey full", "huey", LINKS, "full", "as shipped: WAL, FULL")
ORIGINAL = peer("liteflow 0.2.0", "original", LINKS, "normal", "in memory, nothing is kept")


def most(limit: float, reading: str = "us") -> Bar:
    """Ask for a reading of at most *limit*."""
    return Bar(reading, most=limit)


def times(limit: float, other: Subject) -> Bar:
    """Ask for at most so many times what the other takes."""
    return Bar("us", other, most=limit)


def faster(limit: float, other: Subject) -> Bar:
    """Ask that LiteFlow is so many times faster than the other."""
    return Bar("us", other, least=limit, faster=True)


def reported(reading: str = "us", other: Subject | None = None) -> Bar:
    """Ask for nothing: the reading is in the table all the same."""
    return Bar(reading, other, faster=True)


PLAN = (
    Work(
        "chain",
        "chain of 1,000 tasks",
        liteflow("chain", LINKS),
        (
            times(2.0, RAW),
            faster(10, DBOS),
            faster(10, LANGGRAPH),
            faster(30, ORIGINAL),
            reported("us", HUEY),
            reported("us", DBOS_SHIPPED),
        ),
        quick=True,
    ),
    Work(
        "chain_full",
        "chain of 1,000 tasks, durability full",
        liteflow("chain", LINKS, "--durability", "full"),
        (times(1.3, RAW_FULL), faster(1, DBOS_FULL), faster(1, LANGGRAPH_FULL), reported("us", HUEY_FULL)),
        quick=True,
    ),
    Work(
        "fan_out",
        "fan-out of 10,000 and gather, 4 threads",
        liteflow("fan_out", 10_000),
        (most(100), times(3.0, raw("fan_out", 10_000, together=10))),
        quick=True,
    ),
    Work(
        "keys", "1,000 keys written by one task", liteflow("keys", 1_000), (most(15), Bar("us", raw("keys", 1_000))), quick=True
    ),
    Work(
        "stream",
        "stream of 10,000 chunks, same process",
        liteflow("stream", 10_000),
        (most(15), Bar("us", raw("stream", 10_000)), most(10, "first_ms")),
        quick=True,
    ),
    Work(
        "stream_elsewhere",
        "stream of 10,000 chunks, other process",
        liteflow("stream_elsewhere", 10_000),
        (most(30), most(60, "first_ms")),
    ),
    Work("start", "start of a run of one task", liteflow("start", 200), (times(2.0, raw("synced_commit", 200)),), quick=True),
    Work("resume", "resume of a run with 10,000 tasks done", liteflow("resume", 10_000), (most(50, "ms"),)),
    Work("growth", "last of 100,000 tasks against the first", liteflow("growth", 100_000), (most(1.15, "ratio"),)),
    Work("memory", "memory a finished task, of 100,000", liteflow("memory", 100_000), (most(100, "bytes"),)),
    Work("idle", "idle: 1,000 async tasks, 100 gets wait", liteflow("idle", 10), (most(0.5, "percent"),)),
    *(
        Work(
            f"beside_busy_{busy}",
            f"task beside {busy} busy thread{'s' * (busy > 1)}",
            liteflow("beside_busy", 200, "--threads", str(busy)),
            (reported("mean_us"), reported("p95_us"), reported("worst_us"), reported("statements")),
        )
        for busy in (1, 4)
    ),
    Work(
        "runs_together",
        "4 runs at once against one",
        liteflow("runs_together", 1_000),
        (Bar("ratio", least=1.0), reported("slowest_share")),
    ),
    Work(
        "runs_together_full",
        "4 runs at once, durability full",
        liteflow("runs_together", 1_000, "--durability", "full"),
        (Bar("ratio", least=1.4), reported("slowest_share")),
    ),
    Work("imports", "import liteflow, liteflow --help", liteflow("imports", 5), (most(100, "import_ms"), most(200, "help_ms"))),
    Work(
        "many_keys",
        "a get and a set, 10,000 keys against 10",
        liteflow("many_keys", 10_000),
        (most(1.3, "get_ratio"), most(1.3, "set_ratio")),
    ),
    Work(
        "large_value",
        "how often a large value is encoded",
        liteflow("large_value", 10_000_000),
        (Bar("encodes", most=1, least=1),),
    ),
)
