"""A daemon's control API, over its unix socket."""
import http.client
import json
import socket


class ApiError(RuntimeError):
    """The daemon's refusal. `code` is its error code."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Api:
    """One kept connection."""

    def __init__(self, path):
        self.path, self.connection = path, None

    def call(self, method, path, body=None):
        """The JSON that it answers. Raises ApiError, or OSError when nobody answers."""
        text = None if body is None else json.dumps(body)
        is_kept = self.connection is not None
        try:
            answer, text = self.send(method, path, text)
        except (http.client.RemoteDisconnected, BrokenPipeError):
            if not is_kept:  # else the daemon has closed it because nobody spoke
                raise
            answer, text = self.send(method, path, text)
        if answer.status >= 300:
            error = json.loads(text)["error"]
            raise ApiError(error["code"], error["message"])
        return json.loads(text)

    def send(self, method, path, text):
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection("tapvs", timeout=60)
                self.connection.sock = socket.socket(socket.AF_UNIX)
                self.connection.sock.settimeout(60)
                self.connection.sock.connect(self.path)
            self.connection.request(method, path, text, {"content-type": "application/json"})
            answer = self.connection.getresponse()
            return answer, answer.read().decode()
        except (OSError, http.client.HTTPException):
            self.close()
            raise

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None
