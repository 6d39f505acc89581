"""A tapvsd in the place of a recording's machine: its folder, its configuration, its API, its beginning and its end."""
import json
import os
import shutil
import subprocess
import tempfile
import time

from api import Api

START_SECONDS = 20


class Daemon:
    """For backends. `opts`: bin (folder of tapvs and tapvsd), log (file for the daemon's words)."""

    daemon = None
    run_dir = None

    def prepare(self):
        """A folder, a socket in it, and the environment in which tapvs finds it."""
        self.run_dir = tempfile.mkdtemp(prefix="tapvs-oracle-")
        self.socket = os.path.join(self.run_dir, "tapvs.sock")
        self.api = Api(self.socket)
        self.env = dict(os.environ, TAPVS_SOCKET=self.socket, STATE_DIRECTORY=self.run_dir, LC_ALL="C")

    def start_daemon(self, config, popen):
        """With a clock that others turn. @param popen runs words in the namespace of the machine"""
        path = os.path.join(self.run_dir, "tapvs.yaml")
        with open(path, "w") as f:
            json.dump(config, f)  # JSON is YAML
        argv = ["setpriv", "--pdeathsig", "KILL", "--", os.path.join(self.opts.bin, "tapvsd"), "--test-clock",
                "--config", path, "--socket", self.socket, "--log-level", "info"]
        with open(self.opts.log, "wb") as log:
            self.daemon = popen(argv, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS
        while True:
            if self.daemon.poll() is not None:
                raise RuntimeError("tapvsd ended with status %d: %s" % (self.daemon.returncode, self.last_words()))
            try:
                return self.api.call("GET", "/v1/status")
            except OSError:
                if time.monotonic() > end:
                    raise RuntimeError("tapvsd does not answer: " + self.last_words()) from None
                time.sleep(0.01)

    def last_words(self):
        with open(self.opts.log, errors="replace") as f:
            return " / ".join(f.read().splitlines()[-3:])

    def stop_daemon(self):
        if self.daemon is not None:
            self.api.close()
            self.daemon.terminate()
            try:
                self.daemon.wait(10)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        if self.run_dir is not None:
            shutil.rmtree(self.run_dir, ignore_errors=True)
