"""What the roles say about an inventory, without Ansible: the filters alone."""

import importlib.util
import pathlib
import sys

PATH = pathlib.Path(sys.argv[1]) / "roles/hallpass/filter_plugins/hallpass.py"
spec = importlib.util.spec_from_file_location("hallpass", PATH)
hallpass = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hallpass)

GOOD = "Xk3mY8q0Zt5vB2nR7pLwD4sG9hJ1cF6a"
OTHER = "aF6cJ1hG9sD4wLp7Rn2bB5vt0Zq8Ym3k"
LISTEN = [
    {"transport": "tls", "address": "[::]:443"},
    {"transport": "udp", "address": "[::]:3478"},
    {"transport": "udp", "address": "127.0.0.1:9999"},
]
RELAYS = {"relay": {"ansible_host": "relay.example.org"}, "socket": {"hallpass_public_name": "socket.example.org"}}


def inventory(bbb, seed=None, seed_previous=None, relays=None):
    for variables in bbb.values():
        variables.setdefault("hallpass_via", "relay")
        variables.setdefault("hallpass_peers", "198.51.100.20")
    relays = RELAYS if relays is None else relays
    return hallpass.hallpass_hosts(list(bbb), {**relays, **bbb}, list(relays), LISTEN, seed, seed_previous)


def problems(bbb, **more):
    return inventory(bbb, **more)["problems"]


def says(text, bbb, **more):
    found = problems(bbb, **more)
    assert any(text in one for one in found), f"{text!r} is not in {found}"
    assert not any(GOOD in one or OTHER in one for one in found), f"a secret is printed: {found}"


def xml(*servers):
    beans = "".join(
        f'<bean id="t{number}" class="org.bigbluebutton.web.services.turn.TurnServer"><constructor-arg index="0" value="{secret}"/>'
        f'<constructor-arg index="1"><value>{url}</value></constructor-arg></bean><ref bean="t{number}"/>'
        for number, (url, secret) in enumerate(servers)
    )
    return f'<beans xmlns="http://www.springframework.org/schema/beans">{beans}</beans>'


def differences(found, texts):
    results = [{"item": host, "stdout": f"1700000000\n{text}"} for host, text in texts.items()]
    return hallpass.hallpass_differences(found, [*results, {"item": "new", "stdout": ""}])


# What an operator gets wrong in the vault.
assert problems({"ping": {"hallpass_secret": GOOD}}) == []
for wrong, text in [
    (None, "is empty"),
    ("", "is empty"),
    ("  ", "is empty"),
    (12345678901234567890, "put it into quotes"),
    (True, "put it into quotes"),
    ([GOOD], "is a list"),
    (f"{GOOD}\n", "has a line break"),
    (f"{GOOD}\t", "control character"),
    (f" {GOOD}", "blank"),
    (f'"{GOOD}"', "quotes inside"),
    (f"static-auth-secret={GOOD}", "keep only the secret itself"),
    ("$ANSIBLE_VAULT;1.1;AES256\n3132", "still encrypted"),
    ("CHANGE-ME", "placeholder"),
    ("<put the secret here>", "placeholder"),
    ("replace-this-secret", "placeholder"),
    ("short", "5 bytes, and at least 16"),
    ("xxxxxxxxxxxxxxxxxxxxxxxx", "repeats a few characters"),
]:
    says(f"ping: hallpass_secret {text}" if text.startswith(("is", "has")) else text, {"ping": {"hallpass_secret": wrong}})
says("hallpass_secret_seed is a placeholder", {"ping": {}}, seed="CHANGE-ME")
says("ping: there is no secret", {"ping": {}})
says("the previous secret is the same", {"ping": {"hallpass_secret": GOOD, "hallpass_secret_previous": GOOD}})
says("hallpass_secret_previous is empty", {"ping": {"hallpass_secret": GOOD, "hallpass_secret_previous": None}})
says("both valid and revoked", {"ping": {"hallpass_secret": GOOD, "hallpass_secrets_revoked": [GOOD]}})
says("have the same secret", {"ping": {"hallpass_secret": GOOD}, "tuit": {"hallpass_secret": GOOD}})
named = {"hallpass_secret": GOOD, "hallpass_name": "school"}
assert problems({"ping": dict(named), "tuit": dict(named)}) == []
says("same hallpass_name and different secrets", {"ping": dict(named), "tuit": {**named, "hallpass_secret": OTHER}})

# And in the inventory.
says("say which relay it uses: hallpass_via: relay or socket", {"ping": {"hallpass_via": None, "hallpass_secret": GOOD}})
says("hallpass_via names watch", {"ping": {"hallpass_via": "watch", "hallpass_secret": GOOD}})
says("no address in the DNS", {"ping": {"hallpass_peers": None, "bbb_hostname": "no-such-host.invalid", "hallpass_secret": GOOD}})
says("which is no address", {"ping": {"hallpass_peers": ["198.51.100"], "hallpass_secret": GOOD}})
says("browsers need a name", {"ping": {"hallpass_via": "r", "hallpass_secret": GOOD}}, relays={"r": {"ansible_host": "192.0.2.1"}})
says("there is no relay", {"ping": {"hallpass_secret": GOOD}}, relays={})

# Derived secrets differ by host, seed and generation; a previous seed or generation is a second one.
first = inventory({"ping": {}, "tuit": {}}, seed=GOOD)["hosts"]
assert [len(host["secrets"][0]) for host in first] == [64, 64] and first[0]["secrets"] != first[1]["secrets"]
rotated = inventory({"ping": {"hallpass_secret_generation": 2, "hallpass_secret_generation_previous": 1}}, seed=GOOD)
assert rotated["hosts"][0]["secrets"][1] == first[0]["secrets"][0] != rotated["hosts"][0]["secrets"][0]
rotated = inventory({"ping": {}}, seed=OTHER, seed_previous=GOOD)
assert rotated["hosts"][0]["secrets"][1] == first[0]["secrets"][0]

# The secret in use.
pair = {"ping": {"hallpass_secret": GOOD}, "tuit": {"hallpass_secret": OTHER}}
both = inventory(pair)
url = "turn:relay.example.org:3478"
for used, text in [
    (GOOD, None),
    (OTHER, "the inventory has for tuit: the two are swapped"),
    (GOOD.swapcase(), "upper and lower case"),
    (f"{GOOD} ", "blanks"),
    (f"{GOOD}=", "is cut off: 32 bytes, on the host 33"),
    ("0" * 32, "nothing in common"),
]:
    found = differences(both, {"ping": xml((url, used), ("turn:other.example.net:3478", "elsewhere"))})
    assert (found == []) if text is None else len(found) == 1 and text in found[0], found
    assert not any(GOOD in one or OTHER in one for one in found), found
two = {host: xml((url, "0" * 32)) for host in pair}
assert "all hosts differ" in differences(both, two)[-1]
announced = inventory({"ping": {"hallpass_secret": GOOD, "hallpass_secret_previous": OTHER}})
assert differences(announced, {"ping": xml((url, OTHER))}) == []
revoked = inventory({"ping": {"hallpass_secret": GOOD, "hallpass_secrets_revoked": OTHER}})
assert differences(revoked, {"ping": xml((url, OTHER))}) == []
assert differences(both, {"ping": "not XML"}) == []

# Who loses a secret that the relay accepts now.
text = hallpass.hallpass_toml({"host": hallpass.hallpass_host_tables(announced, "relay")})
assert text == f'\n[[host]]\nname = "ping"\nsecrets = ["{GOOD}", "{OTHER}"]\npeers = ["198.51.100.20"]\n', text
assert hallpass.hallpass_removed_secrets(announced, "relay", text) == []
assert hallpass.hallpass_removed_secrets(inventory({"ping": {"hallpass_secret": GOOD}}), "relay", text) == ["ping"]
assert hallpass.hallpass_removed_secrets(revoked, "relay", text) == []

results = [{"item": "ping", "stdout": "1700000000\n<beans/>"}, {"item": "new", "stdout": ""}]
assert hallpass.hallpass_recent(results, 1700086399.5, "86400") == ["ping"]
assert hallpass.hallpass_recent(results, 1700086400.5, 86400) == []

# The variables of the n0emis and the ebbba role.
n0emis = [
    {"server": "relay.example.org", "port": 443, "secret": GOOD, "tls": True},
    {"server": "ping.example.org", "port": 3478, "secret": OTHER, "tls": False},
]
ebbba = [{"url": "turns:relay.example.org:443?transport=tcp", "secret": GOOD}, {"url": "turn:ping.example.org:3478?transport=tcp", "secret": OTHER}]
stun_urls = ["stun:stun.example.net:19302", "stun:relay.example.org:3478"]
for turn, stun in [(n0emis, [{"server": url[5:]} for url in stun_urls]), (ebbba, stun_urls)]:
    migrated = inventory({"ping": {"bbb_turn_servers": turn}})
    assert migrated["problems"] == [] and migrated["hosts"][0]["secrets"] == [GOOD], migrated
    servers = hallpass.hallpass_bbb_servers(migrated, "ping", turn, stun, [{"server": "198.51.100.20"}])
    assert servers == {
        "stun": ["stun:relay.example.org:3478", "stun:stun.example.net:19302"],
        "turn": [
            {"url": "turn:relay.example.org:3478", "secret": GOOD},
            {"url": "turns:relay.example.org:443?transport=tcp", "secret": GOOD},
            {"url": "turn:ping.example.org:3478?transport=tcp", "secret": OTHER},
        ],
        "candidates": ["198.51.100.20"],
    }, servers
own = inventory({"ping": {"hallpass_via": "ping", "bbb_coturn_secret": GOOD}}, relays={**RELAYS, "ping": {"ansible_host": "ping.example.org"}})
assert own["hosts"][0]["secrets"] == [GOOD], own

# TOML, and what needs a restart.
old = hallpass.hallpass_toml({"privacy": False, "realm": 'a"b\\c', "tls": None, "limits": {"mss": 0, "x y": [1, True]}, "listen": [{"address": "é"}]})
assert old == 'privacy = false\nrealm = "a\\"b\\\\c"\n\n[limits]\nmss = 0\n"x y" = [1, true]\n\n[[listen]]\naddress = "é"\n', old
assert hallpass.hallpass_needs_restart(old, old.replace('"a', '"z', 1)) == []
assert hallpass.hallpass_needs_restart(old, old.replace("privacy = false", "privacy = true")) == ["privacy"]
assert hallpass.hallpass_needs_restart(old, old.replace("é", "è")) == []
assert hallpass.hallpass_needs_restart(old + "\n[tls]\ncert = 'a'\n", old) == ["[tls]"]
acme = "\n[acme]\ndomains = ['relay.example.org']\n"
assert hallpass.hallpass_needs_restart(old + "\n[tls]\ncert = 'a'\n", old + acme) == []
assert hallpass.hallpass_needs_restart(old + acme, old) == ["[acme]"]
assert hallpass.hallpass_needs_restart(old, old + acme + "\n[redirect]\naddress = '[::]:80'\n") == []
assert hallpass.hallpass_needs_restart(old, old + "\n[admin]\n") == ["[admin]"]
assert hallpass.hallpass_needs_restart("", old) == []
print("all as expected")
