"""Run scripts in children of one process that has imported the heavy libraries: 12 s of CPU saved for each script.

with WarmProcess() as warm:
    done = warm.run(script, cwd=directory)     # as subprocess.run(..., capture_output=True, text=True) gives it
"""

import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

HEAVY = ("torch", "sentence_transformers", "cderetrieval.evaluation.api", "cderetrieval.retrieval.hybrid", "faiss")


class WarmProcess:
    """The process; scripts run one after the other, each in a fork of it."""

    def __init__(self):
        self._process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait(30)

    def run(self, script, cwd, arguments=()):
        """Run a script to its end."""
        if self._process is None:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
        with tempfile.TemporaryDirectory() as directory:
            out, err = Path(directory) / "out", Path(directory) / "err"
            request = [str(script), str(cwd), str(out), str(err), [str(argument) for argument in arguments]]
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            texts = [path.read_text(encoding="utf-8") for path in (out, err)]
        return subprocess.CompletedProcess([str(script)], code, *texts)


def serve():
    """Fork for each request, and say with which status the child ended."""
    for name in HEAVY:
        __import__(name)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(*json.loads(line))
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def child(script, cwd, out, err, arguments):
    """Become what `python script arguments` in that directory is."""
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(cwd)
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(script).parent))
    code = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
