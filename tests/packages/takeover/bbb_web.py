"""Stands in for bbb-web: reads its list of TURN servers once at the start, as bbb-web does, and answers /bigbluebutton/api/stuns.
Every other path is a page that shows what nginx says about the browser.
"""

import base64
import hashlib
import hmac
import http.server
import json
import os
import random
import socket
import time
import urllib.parse
import xml.etree.ElementTree as tree

OWN = "/etc/bigbluebutton/turn-stun-servers.xml"
PACKAGED = "/usr/share/bbb-web/WEB-INF/classes/spring/turn-stun-servers.xml"
SPRING = "{http://www.springframework.org/schema/beans}"
CLASSES = "org.bigbluebutton.web.services.turn."
PORT = 8090


def read_list():
    # One file or the other, without a word.
    path = OWN if os.access(OWN, os.R_OK) else PACKAGED
    beans = {bean.get("id"): bean for bean in tree.parse(path).getroot().iter(SPRING + "bean")}

    def arguments(bean, kind):
        assert bean.get("class") == CLASSES + kind, bean.get("class")
        found = {one.get("index"): one.get("value") for one in bean.iter(SPRING + "constructor-arg")}
        return [found[str(index)] for index in range(len(found))]

    def referenced(name, kind):
        properties = beans["stunTurnService"].iter(SPRING + "property")
        of_name = [one for one in properties if one.get("name") == name]
        refs = [ref.get("bean") for one in of_name for ref in one.iter(SPRING + "ref")]
        return [arguments(beans[ref], kind) for ref in refs]

    return referenced("stunServers", "StunServer"), referenced("turnServers", "TurnServer")


def login(secret, url, ttl, user):
    name = f"{int(time.time()) + int(ttl)}:{user}"
    digest = hmac.new(secret.encode(), name.encode(), hashlib.sha1).digest()
    return {"username": name, "password": base64.b64encode(digest).decode(), "url": url, "ttl": int(ttl)}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/bigbluebutton/api/stuns":
            kind, body = "application/json", json.dumps(self.stuns(urllib.parse.parse_qs(url.query)))
        else:
            seen = " ".join(str(self.headers[name]) for name in ("X-Real-IP", "X-Forwarded-Proto", "Host"))
            kind, body = "text/html", f"<!DOCTYPE html><title>conference</title>{seen}\n"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body.encode())

    do_HEAD = do_GET

    def stuns(self, query):
        token = query.get("sessionToken", [""])[0]
        if not token:
            return {"returncode": "FAILED", "message": "no session", "logoutURL": "/"}
        answer = [login(*server, "w_" + token) for server in TURN]
        # bbb-web keeps them in a HashSet.
        random.shuffle(answer)
        return {"stunServers": [{"url": url} for (url,) in STUN], "turnServers": answer, "remoteIceCandidates": []}

    def log_message(self, *_):
        pass


STUN, TURN = read_list()
server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
# sd_notify(3)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
    manager.connect(os.environ["NOTIFY_SOCKET"])
    manager.send(b"READY=1")
server.serve_forever()
