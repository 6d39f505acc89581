"""An FTP server for the tests: ftp-server.py ADDRESS DIRECTORY [RECORDS]. Anonymous may read and write; active data connections come from port 20 (RFC 959 §3.2).
What its control connections received and sent is kept in RECORDS, as 1.in and 1.out, 2.in …: the bytes that its socket saw."""
import itertools
import logging
import sys

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import ActiveDTP, FTPHandler
from pyftpdlib.servers import FTPServer

logging.disable(logging.CRITICAL)


class FromPort20(ActiveDTP):
    def connect_af_unspecified(self, addr, source_address=None):
        return super().connect_af_unspecified(addr, (source_address[0], 20))

    def create_socket(self, *args, **kwargs):
        super().create_socket(*args, **kwargs)
        self.set_reuse_addr()


class Handler(FTPHandler):
    active_dtp = FromPort20
    passive_ports = range(50000, 50100)
    numbers = itertools.count(1)
    records = None

    def __init__(self, *args, **kwargs):
        self.number = next(self.numbers)
        super().__init__(*args, **kwargs)

    def recv(self, size):
        data = super().recv(size)
        self.keep("in", data)
        return data

    def send(self, data):
        sent = super().send(data)
        self.keep("out", data[:sent])
        return sent

    def keep(self, way, data):
        if self.records is not None:
            with open(f"{self.records}/{self.number}.{way}", "ab") as file:
                file.write(data)


address, directory = sys.argv[1:3]
Handler.records = sys.argv[3] if len(sys.argv) > 3 else None
Handler.authorizer = DummyAuthorizer()
Handler.authorizer.add_anonymous(directory, perm="elradfmw")
server = FTPServer((address, 21), Handler)
print("ready", flush=True)
server.serve_forever()
