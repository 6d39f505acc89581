"""An FTP server for the tests: ftp-server.py ADDRESS DIRECTORY. Anonymous may read and write; active data connections come from port 20 (RFC 959 §3.2)."""
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


address, directory = sys.argv[1:]
Handler.authorizer = DummyAuthorizer()
Handler.authorizer.add_anonymous(directory, perm="elradfmw")
server = FTPServer((address, 21), Handler)
print("ready", flush=True)
server.serve_forever()
