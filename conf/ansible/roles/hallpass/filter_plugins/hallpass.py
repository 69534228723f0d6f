"""Filters of the Hallpass roles: who uses which relay, whether the secrets are right, and the texts of the files.

No message contains a secret.
"""

import functools
import hashlib
import ipaddress
import json
import re
import socket
import xml.etree.ElementTree as ElementTree

# `hallpass check` warns below this length: anyone who has seen one password can guess a shorter secret.
SECRET_SHORT_BYTES = 16
# Fewer different characters are a key held down, not a random text.
SECRET_CHARACTERS_MIN = 6
MAKE_ONE = "make one: openssl rand -base64 32"
PLACEHOLDERS = ("changeme", "changeit", "replaceme", "replacethis", "replacewith", "placeholder", "example", "yoursecret")
# Keys before a secret that was copied with its whole line from another configuration.
COPIED_KEY = re.compile(r"^\s*(static-auth-secret|secret|turn_secret|bbb_coturn_secret|hallpass_secret\w*)\s*[=:]")
# Sections and keys of hallpass.toml for which a reload refuses a configuration; docs/operating.md lists them.
NEEDS_RESTART_SECTIONS = ("[admin]", "[control]")
NEEDS_RESTART_KEYS = ("privacy", "workers", "format")
# The section with the certificate cannot be removed without a restart; [acme] is another form of it.
NEEDS_RESTART_REMOVED = ("[tls]", "[acme]")
PACKAGE = "org.bigbluebutton.web.services.turn."


def problems_of(value, variable):
    """Returns what is wrong with a secret as it came from the inventory, or None."""
    if value is None:
        return f"{variable} is empty: {MAKE_ONE}"
    if isinstance(value, (bool, int, float)):
        return f"{variable} is a number or a truth value in YAML, not a text: put it into quotes"
    if not isinstance(value, str) and isinstance(value, (dict, list, tuple)):
        return f"{variable} is a list or a table, not a text"
    text = str(value)
    if not text.strip():
        return f"{variable} is empty: {MAKE_ONE}"
    if text.lstrip().startswith("$ANSIBLE_VAULT"):
        return f"{variable} is still encrypted: write `!vault |` before the encrypted text"
    if "\n" in text or "\r" in text:
        return f"{variable} has a line break: write it on the line of its key, in quotes, without `|`"
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        return f"{variable} has a control character, such as a tab: remove it"
    if text != text.strip():
        return f"{variable} starts or ends with a blank: remove it"
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return f"{variable} has quotes inside its quotes: remove one pair"
    copied = COPIED_KEY.match(text)
    if copied:
        return f"{variable} starts with `{copied.group(1)}`: keep only the secret itself"
    plain = re.sub(r"[^a-z]", "", text.lower())
    is_bracketed = text.startswith("<") and text.endswith(">")
    if is_bracketed or any(word in plain for word in PLACEHOLDERS):
        return f"{variable} is a placeholder: {MAKE_ONE}"
    length = len(text.encode())
    if length < SECRET_SHORT_BYTES:
        return f"{variable} has {length} bytes, and at least {SECRET_SHORT_BYTES} are needed: {MAKE_ONE}"
    if len(set(text)) < SECRET_CHARACTERS_MIN:
        return f"{variable} repeats a few characters and can be guessed: {MAKE_ONE}"
    return None


def derive(seed, name, generation):
    """Returns the secret of a host made from the seed of all."""
    # The seed on both ends: without it nobody can extend a known digest to that of another name.
    return hashlib.sha256(f"{seed}\n{name}\n{generation}\n{seed}".encode()).hexdigest()


def as_list(value):
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return [entry if isinstance(entry, dict) else str(entry) for entry in value]
    return [str(value)]


def is_address(text):
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=None)
def addresses_of(name):
    """Returns the addresses of a name in the DNS of this machine, sorted; none if there is no such name."""
    if is_address(name):
        return (name,)
    try:
        found = socket.getaddrinfo(name, None, proto=socket.IPPROTO_UDP)
    except OSError:
        return ()
    found = {entry[4][0].split("%")[0] for entry in found}
    # A name that /etc/hosts leads to the machine itself says nothing about its address outside.
    found = {address for address in found if not ipaddress.ip_address(address).is_loopback}
    return tuple(sorted(found, key=lambda address: (":" in address, int(ipaddress.ip_address(address)))))


def relay_entry(host, variables, default_listen):
    name = variables.get("hallpass_public_name") or variables.get("ansible_host") or host
    listen = variables.get("hallpass_listen") or default_listen
    return {"host": host, "public_name": str(name), "urls": urls(str(name), listen)}


def urls(name, listen):
    """Returns the STUN and TURN URLs of the listeners: UDP, TCP, then TLS."""
    place = f"[{name}]" if ":" in name else name
    public = [entry for entry in listen if not is_loopback(str(entry["address"]))] or list(listen)
    stun, turn = [], []
    for transport, scheme, tail in (("udp", "turn", ""), ("tcp", "turn", "?transport=tcp"), ("tls", "turns", "?transport=tcp")):
        for entry in public:
            if str(entry["transport"]) != transport:
                continue
            port = str(entry["address"]).rsplit(":", 1)[1]
            turn.append(f"{scheme}:{place}:{port}{tail}")
            if transport == "udp":
                stun.append(f"stun:{place}:{port}")
    return {"stun": list(dict.fromkeys(stun)), "turn": list(dict.fromkeys(turn))}


def is_loopback(address):
    host = address.rsplit(":", 1)[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_of(url):
    rest = url.split(":", 1)[1] if ":" in url else url
    rest = rest.split("?", 1)[0]
    if rest.startswith("["):
        return rest[1:].split("]", 1)[0]
    return rest.split(":", 1)[0]


def servers_of(entries, scheme):
    """Returns entries of the variables of other roles as a list of url and secret.

    Accepted are an URL, {url, secret} (ebbba role) and {server, port, secret, tls} (n0emis role, always over TCP).
    """
    servers = []
    for entry in as_list(entries):
        if isinstance(entry, str):
            servers.append({"url": entry if ":" in entry else f"{scheme}:{entry}", "secret": None})
        elif "url" in entry:
            servers.append({"url": str(entry["url"]), "secret": entry.get("secret")})
        elif scheme == "stun":
            servers.append({"url": f"stun:{entry['server']}", "secret": None})
        else:
            is_tls = str(entry.get("tls", False)).lower() in ("true", "yes", "1")
            url = f"{'turns' if is_tls else 'turn'}:{entry['server']}:{entry.get('port', 3478)}?transport=tcp"
            servers.append({"url": url, "secret": entry.get("secret")})
    return servers


def secret_of(host, name, variables, relays, seeds, problems):
    """Returns the secrets of a host, newest first, and those that are revoked."""
    old_style = [
        (f"bbb_turn_servers, entry {server['url']}", server["secret"])
        for server in servers_of(variables.get("bbb_turn_servers"), "turn")
        if server["secret"] and any(host_of(server["url"]) == relay["public_name"] for relay in relays)
    ]
    own_relay = any(relay["host"] == host for relay in relays)
    generation = variables.get("hallpass_secret_generation", 1)
    previous_generation = variables.get("hallpass_secret_generation_previous")
    written = []
    if "hallpass_secret" in variables:
        written.append(("hallpass_secret", variables["hallpass_secret"]))
    elif old_style:
        written.append(old_style[0])
    elif own_relay and variables.get("bbb_coturn_secret"):
        written.append(("bbb_coturn_secret", variables["bbb_coturn_secret"]))
    elif seeds[0] is not None:
        wrong = [problems_of(seed, variable) for variable, seed in zip(("hallpass_secret_seed", "hallpass_secret_seed_previous"), seeds) if seed is not None]
        if any(wrong):
            problems.extend(text for text in wrong if text and text not in problems)
            return [], []
        written.append(("the derived secret", derive(seeds[0], name, generation)))
        if seeds[1] is not None or previous_generation is not None:
            seed = seeds[1] if seeds[1] is not None else seeds[0]
            last = previous_generation if previous_generation is not None else generation
            written.append(("the derived previous secret", derive(seed, name, last)))
    else:
        problems.append(
            f"{host}: there is no secret: put hallpass_secret_seed for all hosts, or hallpass_secret for this one, into the vault; {MAKE_ONE}"
        )
        return [], []
    if variables.get("hallpass_secret_previous") is not None:
        written.append(("hallpass_secret_previous", variables["hallpass_secret_previous"]))
    elif "hallpass_secret_previous" in variables:
        problems.append(f"{host}: hallpass_secret_previous is empty: put the old secret into it, or remove the key")
    revoked = [("hallpass_secrets_revoked", secret) for secret in as_list(variables.get("hallpass_secrets_revoked"))]
    for variable, secret in written + revoked:
        problem = problems_of(secret, variable)
        # A leaked secret may be anything; only a line break would make another secret of it.
        if problem and (variable != "hallpass_secrets_revoked" or "line break" in problem):
            problems.append(f"{host}: {problem}")
    secrets = [str(secret) for _, secret in written]
    if len(secrets) > 1 and len(set(secrets)) < len(secrets):
        problems.append(
            f"{host}: the previous secret is the same as the new one, so nothing is rotated: put the new secret into "
            "hallpass_secret and the one in use into hallpass_secret_previous"
        )
    revoked = [str(secret) for _, secret in revoked]
    if set(revoked) & set(secrets):
        problems.append(f"{host}: a secret is both valid and revoked: remove it from hallpass_secret or hallpass_secret_previous")
    return secrets, revoked


def hallpass_hosts(bbb_hosts, hostvars, relay_hosts, default_listen, seed=None, seed_previous=None):
    """Returns the BigBlueButton hosts with their relays, secrets and peers, and all problems of the inventory."""
    relays = {host: relay_entry(host, hostvars[host], default_listen) for host in relay_hosts}
    problems, hosts = [], []
    if not relays:
        problems.append("there is no relay: add one to the group hallpass_relays of the inventory")
    for relay in relays.values():
        if is_address(relay["public_name"]):
            problems.append(
                f"{relay['host']}: browsers need a name, not the address {relay['public_name']}: set hallpass_public_name"
            )
    for host in bbb_hosts:
        variables = hostvars[host]
        name = str(variables.get("hallpass_name") or host)
        via = as_list(variables.get("hallpass_via")) or (list(relays) if len(relays) == 1 else [])
        if not via and relays:
            problems.append(f"{host}: say which relay it uses: hallpass_via: {' or '.join(relays)}")
        for unknown in [relay for relay in via if relay not in relays]:
            problems.append(f"{host}: hallpass_via names {unknown}, and the relays are {', '.join(relays) or 'none'}")
        used = [relays[relay] for relay in via if relay in relays]
        outside = str(variables.get("bbb_hostname") or variables.get("ansible_host") or host)
        peers = as_list(variables.get("hallpass_peers")) or list(addresses_of(outside))
        if not peers:
            problems.append(f"{host}: {outside} has no address in the DNS: set hallpass_peers to the addresses of this host")
        for peer in [peer for peer in peers if not is_address(peer)]:
            problems.append(f"{host}: hallpass_peers has {peer}, which is no address")
        secrets, revoked = secret_of(host, name, variables, list(relays.values()), (seed, seed_previous), problems)
        hosts.append({"host": host, "name": name, "relays": used, "secrets": secrets, "revoked": revoked, "peers": peers})
    problems.extend(shared_secrets(hosts))
    return {"hosts": hosts, "relays": list(relays.values()), "problems": problems}


def shared_secrets(hosts):
    """Returns a problem for hosts that share a secret and not the name, or the name and not the secret."""
    problems = []
    for number, host in enumerate(hosts):
        for other in hosts[:number]:
            if host["name"] == other["name"]:
                if host["secrets"] != other["secrets"]:
                    problems.append(
                        f"{other['host']} and {host['host']}: have the same hallpass_name and different secrets: give both "
                        "the same secret, or each its own hallpass_name"
                    )
            elif set(host["secrets"]) & set(other["secrets"]):
                problems.append(
                    f"{other['host']} and {host['host']}: have the same secret, and the relay tells hosts apart by their "
                    "secrets: give each its own, or both the same hallpass_name"
                )
    return problems


def hallpass_host_tables(inventory, relay):
    """Returns the [[host]] tables of a relay. BigBlueButton hosts with the same name are one."""
    tables = {}
    for host in inventory["hosts"]:
        if relay not in [used["host"] for used in host["relays"]]:
            continue
        table = tables.setdefault(host["name"], {"name": host["name"], "secrets": host["secrets"], "peers": []})
        if host["revoked"]:
            table["revoked"] = list(dict.fromkeys(table.get("revoked", []) + host["revoked"]))
        table["peers"] = list(dict.fromkeys(table["peers"] + host["peers"]))
    return list(tables.values())


def hallpass_xml_servers(text):
    """Returns the TURN servers in turn-stun-servers.xml that bbb-web uses, as url and secret.

    None if the text is not XML.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None
    beans, used = {}, []
    for element in root.iter():
        if element.tag.rsplit("}", 1)[-1] == "bean":
            beans[element.get("id")] = element
    for element in root.iter():
        if element.tag.rsplit("}", 1)[-1] == "ref":
            used.append(element.get("bean") or element.get("local"))
    servers = []
    for name in used:
        bean = beans.get(name)
        if bean is None or bean.get("class") != f"{PACKAGE}TurnServer":
            continue
        arguments = {}
        for argument in bean:
            value = argument.get("value")
            if value is None:
                value = "".join(argument.itertext()).strip()
            arguments[argument.get("index")] = value
        servers.append({"url": arguments.get("1", ""), "secret": arguments.get("0", "")})
    return servers


def hint(found, host, hosts):
    """Returns in which way a secret in use differs from that of the inventory."""
    wanted = host["secrets"][0]
    owner = next((other["host"] for other in hosts if other is not host and found in other["secrets"]), None)
    if owner:
        return f"it is the secret that the inventory has for {owner}: the two are swapped"
    if found.strip() == wanted.strip():
        return "the two differ in blanks or line breaks at an end"
    if found.lower() == wanted.lower():
        return "the two differ in upper and lower case"
    if found and (found.startswith(wanted) or wanted.startswith(found)):
        ours, theirs = len(wanted.encode()), len(found.encode())
        longer = "cut off" if ours < theirs else "longer"
        return f"that of the inventory is {longer}: {ours} bytes, on the host {theirs}, with the same beginning"
    return "the two have nothing in common"


def lists_of(results):
    """Returns the time and the text of turn-stun-servers.xml by host, from the results of reading it; hosts without one are
    left out."""
    found = {}
    for result in results:
        time, _, text = str(result.get("stdout") or "").partition("\n")
        if time.isdigit():
            found[str(result["item"])] = (int(time), text)
    return found


def hallpass_recent(results, now, ttl):
    """Returns the hosts whose list is younger than the lifetime of credentials."""
    return [host for host, (time, _) in lists_of(results).items() if float(now) - time < int(ttl)]


def hallpass_differences(inventory, results):
    """Returns a problem for each host whose file has a secret that the inventory does not know.

    `results` are those of reading the files.
    """
    texts = {host: text for host, (_, text) in lists_of(results).items()}
    names = {relay["public_name"] for relay in inventory["relays"]}
    problems, hints, compared = [], [], 0
    for host in inventory["hosts"]:
        # A file that is not XML has no secret to compare; bbb-web does not start with it, and this run replaces it.
        servers = hallpass_xml_servers(texts[host["host"]]) if host["host"] in texts else None
        ours = {server["secret"] for server in servers or [] if host_of(server["url"]) in names}
        compared += bool(ours)
        for found in sorted(ours - set(host["secrets"]) - set(host["revoked"])):
            hints.append(hint(found, host, inventory["hosts"]))
            problems.append(f"{host['host']}: the secret in use there is not that of the inventory; {hints[-1]}")
    if len(problems) > 1 and len(problems) == compared and all("nothing in common" in text for text in hints):
        problems.append("all hosts differ: hallpass_secret_seed has changed, or this is the vault of another installation")
    return problems


def quoted_strings(text):
    return [json.loads(quoted) for quoted in re.findall(r'"(?:[^"\\]|\\.)*"', text)]


def hallpass_removed_secrets(inventory, relay, old_text):
    """Returns the BigBlueButton hosts of a relay that lose a secret which the relay accepts now.

    A revoked secret does not count: its users' calls shall end.
    """
    accepted, name = {}, None
    for line in old_text.splitlines():
        key, _, value = line.partition(" = ")
        if key == "name":
            name = json.loads(value)
        elif key == "secrets":
            accepted[name] = quoted_strings(value)
    losers = []
    for host in inventory["hosts"]:
        if relay not in [used["host"] for used in host["relays"]]:
            continue
        kept = set(host["secrets"]) | set(host["revoked"])
        if set(accepted.get(host["name"], [])) - kept:
            losers.append(host["host"])
    return losers


def toml_key(key):
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def toml_value(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(entry) for entry in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml_key(str(key))} = {toml_value(entry)}" for key, entry in value.items()) + " }"
    # A JSON string is a TOML string, except that TOML wants DEL escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def is_table_list(value):
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(entry, dict) for entry in value)


def hallpass_toml(settings):
    """Returns a configuration as TOML: plain keys, then tables, then lists of tables. None leaves a key out."""
    settings = {str(key): value for key, value in settings.items() if value is not None}
    lines = []

    def table(header, values):
        lines.extend(["", header])
        lines.extend(f"{toml_key(str(key))} = {toml_value(value)}" for key, value in values.items() if value is not None)

    for key, value in settings.items():
        if not isinstance(value, dict) and not is_table_list(value):
            lines.append(f"{toml_key(key)} = {toml_value(value)}")
    for key, value in settings.items():
        if isinstance(value, dict):
            table(f"[{toml_key(key)}]", value)
    for key, value in settings.items():
        if is_table_list(value):
            for entry in value:
                table(f"[[{toml_key(key)}]]", entry)
    return "\n".join(lines) + "\n"


def hallpass_needs_restart(old_text, new_text):
    """Returns the sections and keys that differ and need a restart. Nothing for a new file."""
    if not old_text.strip():
        return []
    old, new = restart_lines(old_text), restart_lines(new_text)
    parts = [part for part in (*NEEDS_RESTART_SECTIONS, *NEEDS_RESTART_KEYS) if old.get(part) != new.get(part)]
    had, has = ([part for part in NEEDS_RESTART_REMOVED if part in text.split("\n")] for text in (old_text, new_text))
    return parts + had * (not has)


def restart_lines(text):
    found, section = {}, ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip()
            if section in NEEDS_RESTART_SECTIONS:
                found.setdefault(section, []).append("")
        elif line.strip() and not line.startswith("#"):
            if section in NEEDS_RESTART_SECTIONS:
                found[section].append(line.strip())
            elif line.split("=")[0].strip() in NEEDS_RESTART_KEYS:
                found[line.split("=")[0].strip()] = line.strip()
    return found


def hallpass_bbb_servers(inventory, host, turn=None, stun=None, ice=None):
    """Returns the STUN and TURN servers for the file of a BigBlueButton host: its relays, then other servers of the
    variables bbb_turn_servers, bbb_stun_servers and bbb_ice_servers, and remote candidates."""
    entry = next(one for one in inventory["hosts"] if one["host"] == host)
    names = {relay["public_name"] for relay in inventory["relays"]}
    kept_stun = [server["url"] for server in servers_of(stun, "stun") if host_of(server["url"]) not in names]
    kept_turn = [server for server in servers_of(turn, "turn") if host_of(server["url"]) not in names]
    return {
        "stun": [url for relay in entry["relays"] for url in relay["urls"]["stun"]] + kept_stun,
        "turn": [
            {"url": url, "secret": entry["secrets"][0]} for relay in entry["relays"] for url in relay["urls"]["turn"]
        ]
        + kept_turn,
        "candidates": [one["server"] if isinstance(one, dict) else one for one in as_list(ice)],
    }


class FilterModule:
    def filters(self):
        return {
            "hallpass_bbb_servers": hallpass_bbb_servers,
            "hallpass_differences": hallpass_differences,
            "hallpass_host_tables": hallpass_host_tables,
            "hallpass_hosts": hallpass_hosts,
            "hallpass_needs_restart": hallpass_needs_restart,
            "hallpass_recent": hallpass_recent,
            "hallpass_removed_secrets": hallpass_removed_secrets,
            "hallpass_toml": hallpass_toml,
        }
