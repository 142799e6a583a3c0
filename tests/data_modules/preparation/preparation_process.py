"""Preparations in a process of their own, where they can be killed, starved and measured.

python -m tests.data_modules.preparation.preparation_process <what> <job as JSON>   prints what came of it, as JSON
"""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.corpora import FileCorpus, file_formats, find_local_files
from data_modules.corpora.corpus import Chunk
from data_modules.preparation import PartitionedPreparation, PreparationSettings, PreparationTarget, resumable_part
from data_modules.shards.shard_files import read_source_json
from data_modules.shards.shard_integrity import find_damage
from gpt_lightning.tokenizer import load_tokenizer

_EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "sqlite3.connect", "json.dumps"}
_NEVER_CAME = 3
ROOT = Path(__file__).resolve().parents[3]
_tokenizer = cache(load_tokenizer)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Job:
    """What to prepare, of which files, and how."""

    path: str
    folder: str
    fields: dict[str, str] = field(default_factory=lambda: {"text": "text"})
    recipe: dict[str, Any] = field(default_factory=dict)
    tokenizer: str = "gpt2_chatml"
    of: int = 1
    group_mb: float = 64
    workers: int = 1
    pause: float = 0  # seconds after each chunk

    def parts(self, **recipe: Any) -> PartitionedPreparation:
        urls, origin = find_local_files(self.path), {"path": self.path}
        folder = Path(self.folder)
        return PartitionedPreparation(
            FileCorpus(urls, fields=self.fields, origin=origin, max_record_mb=32),
            PreparationTarget(name=folder.name, tokenizer=_tokenizer(self.tokenizer), folder=folder, licence="test"),
            PreparationSettings(**{"val_fraction": 0.1} | self.recipe | recipe),
            of=self.of,
            group_mb=self.group_mb,
        )

    def prepare(self, **recipe: Any) -> dict[str, Any]:
        return self.parts(**recipe).prepare_all(workers=self.workers, progress=lambda now: time.sleep(self.pause))

    @property
    def work(self) -> Path:
        return Path(self.folder).with_name(f".{Path(self.folder).name}.unfinished")

    @property
    def records(self) -> int:
        """How many of its only part are committed."""
        path = self.work / "0_of_1" / "part.json"
        return int(json.loads(path.read_text())["records"]) if path.is_file() else 0


class LongAnswers:
    """An encoder that does nothing but answer at length."""

    def encode(self, file: int, chunk: Chunk) -> np.ndarray:
        return np.zeros(3_000_000, np.uint8)


def contents(folder: Path) -> dict[str, str]:
    """sha256 of every file, by its name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}


def is_whole_or_absent(folder: Path) -> bool:
    return not folder.exists() or find_damage(folder, read_source_json(folder), with_sha256=True) == []


def commit_eagerly(chunk_bytes: int) -> None:
    """After every chunk, and of small ones."""
    resumable_part.COMMIT_SECONDS = -1.0
    file_formats.CHUNK_BYTES = chunk_bytes


def in_fork(do: Callable[[], Any]) -> int:
    """Begin it in a child, which ends with 0 when it is done, with 1 after an OSError and with 2 after another."""
    child = os.fork()
    if child:
        return child
    try:
        do()
        os._exit(0)
    except OSError:
        os._exit(1)
    except BaseException:
        traceback.print_exc()
        os._exit(2)


def prepared(job: Job) -> None:
    """Committed after every chunk."""
    commit_eagerly(1 << 14)
    job.prepare()


def killed_at_random(job: Job, records: int) -> list[dict[str, Any]]:
    """Ten times begun or gone on with, and killed after some of the records, at a random moment; then finished."""
    commit_eagerly(sum(file.stat().st_size for file in Path(job.path).iterdir()) // 60)
    chance = random.Random(0)
    starts = []
    for _ in range(10):
        began_at = job.records
        enough = began_at + chance.randrange(records // 10)
        child = in_fork(job.prepare)
        while job.records < enough and not Path(job.folder).exists():
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        whole = is_whole_or_absent(Path(job.folder))
        starts.append({"began_at": began_at, "killed": os.WIFSIGNALED(status), "whole_or_absent": whole})
        if not os.WIFSIGNALED(status):
            break
    if starts[-1]["killed"]:
        job.prepare()
    return starts


def stopped_at_each(job: Job) -> list[dict[str, Any]]:
    """Anew for every operation on a file that the preparation comes to: killed just before it, or, at every other one, the
    operation fails as on a full disk. Then finished.
    """
    commit_eagerly(1 << 12)
    os.fsync = lambda fd: None  # a kill takes nothing from the system's memory
    stops: list[dict[str, Any]] = []
    while True:
        once = replace(job, folder=f"{job.folder}/{len(stops)}/source")
        count = len(stops)
        child = in_fork(partial(_prepare_until, once, count, kill=count % 2 == 0))
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == _NEVER_CAME:
            return stops
        whole = is_whole_or_absent(Path(once.folder))
        if once.work.exists() or not Path(once.folder).exists():
            once.prepare()
        stops.append({"status": status, "whole_or_absent": whole, "contents": contents(Path(once.folder).parent)})
        shutil.rmtree(Path(once.folder).parent)


def _prepare_until(job: Job, count: int, *, kill: bool) -> None:
    """Until the operation of this number."""

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in _EVENTS or (event == "open" and not arguments[2] & _WRITING):
            return
        if str(Path(job.folder).parent) not in str(arguments[0]):
            return
        count -= 1
        if count == -1 and kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if count == -1:
            raise OSError(errno.ENOSPC, "No space left on device")

    def dumps(*arguments: Any, **more: Any) -> str:
        sys.audit("json.dumps", job.folder)  # so that there is an event between a file's opening and its first byte
        return written(*arguments, **more)

    written, json.dumps = json.dumps, dumps
    sys.addaudithook(watch)
    job.prepare()
    if count >= 0:
        os._exit(_NEVER_CAME)


def starved(job: Job, most_bytes: int) -> str:
    """What is said where no file can grow beyond so many bytes; then the limit is lifted and it is finished."""
    commit_eagerly(1 << 14)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    said = "nothing"
    try:
        job.prepare()
    except OSError as error:
        said = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    job.prepare()
    return said


def measured(job: Job) -> float:
    """The most megabytes of memory that it took."""
    job.prepare()
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1e3


def alone(what: str, job: Job, *more: Any) -> Any:
    """What comes of it in a process of its own."""
    done = subprocess.run(command(what, job, *more), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def command(what: str, job: Job, *more: Any) -> list[str]:
    return [
        sys.executable,
        "-m",
        "tests.data_modules.preparation.preparation_process",
        what,
        json.dumps(asdict(job)),
        *map(json.dumps, more),
    ]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs inherit as ignored
    done = globals()[sys.argv[1]](Job(**json.loads(sys.argv[2])), *map(json.loads, sys.argv[3:]))
    print(json.dumps(done))
