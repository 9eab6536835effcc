"""A real Milvus 2.3.5, standalone, run by the Python of an environment of its own (``pip install milvus==2.3.5``).

Called with a directory and a port. Says "ready" once it answers, and stops when its standard input ends, which it does
whenever the process that started it is gone.
"""

import sys


def main(directory, port):
    from milvus import MilvusServer, MilvusServerConfig

    server = MilvusServer(MilvusServerConfig())
    server.set_base_dir(directory)
    server.listen_port = port
    for component in ("rootCoord", "proxy", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode"):
        server.config.set(f"{component}.ip", "127.0.0.1")
    try:
        server.start()
        sys.stdout.write(f"ready {server.server_proc.pid}\n")
        sys.stdout.flush()
        sys.stdin.read()
    finally:
        server.stop()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
