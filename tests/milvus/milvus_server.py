"""A real Milvus 2.3.5, standalone, run by the Python of an environment of its own (``pip install milvus==2.3.5``).

Called with a directory and a port. Says "ready" once it answers, and stops when its standard input ends, which it does
whenever the process that started it is gone.
"""

import sys
import time
import urllib.request


def main(directory, port):
    from milvus import MilvusServer, MilvusServerConfig

    server = MilvusServer(MilvusServerConfig(), wait_for_started=False)
    server.set_base_dir(directory)
    server.listen_port = port
    for component in ("rootCoord", "proxy", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode"):
        server.config.set(f"{component}.ip", "127.0.0.1")
    try:
        server.start()
        while not healthy(server.webservice_port):
            if server.server_proc.poll() is not None:
                sys.exit(f"it ended with status {server.server_proc.returncode}; its log is in {directory}/logs")
            time.sleep(0.2)
        time.sleep(1)
        sys.stdout.write(f"ready {server.server_proc.pid}\n")
        sys.stdout.flush()
        sys.stdin.read()
    finally:
        server.stop()


def healthy(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return b"OK" in answer.read()
    except OSError:
        return False


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
