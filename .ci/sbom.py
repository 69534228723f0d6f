"""Makes the bill of materials. Arguments: the output of `cargo tree` and `cargo metadata`, Cargo.lock, and the target."""

import datetime
import hashlib
import json
import os
import re
import sys
import tomllib
import uuid

LINE = re.compile(r"(\d+)(\S+) v(\S+)(.*)")


def tree(text):
    """The root, the dependencies of each crate, and the crates that are in the binary, not only used at build time."""
    edges, macros, path = {}, set(), []
    for line in text.splitlines():
        depth, name, version, rest = LINE.fullmatch(line).groups()
        crate = (name, version)
        if "(proc-macro)" in rest:
            macros.add(crate)
        del path[int(depth) :]
        edges.setdefault(crate, set())
        if path:
            edges[path[-1]].add(crate)
        path.append(crate)
    root = next(iter(edges))
    # A procedural macro runs at build time, with all that it depends on.
    built, found = set(), [root]
    while found:
        crate = found.pop()
        if crate not in built | macros:
            built.add(crate)
            found += edges[crate]
    return root, edges, built


def purl(crate):
    return f"pkg:cargo/{crate[0]}@{crate[1].replace('+', '%2B')}"


def component(crate, package, checksum, built):
    found = {
        "type": "library", "bom-ref": purl(crate), "name": crate[0], "version": crate[1],
        # Excluded: used at build time only.
        "scope": "required" if crate in built else "excluded",
    }
    if package["description"]:
        found["description"] = " ".join(package["description"].split())
    if checksum:
        found["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["license"]:
        # Old manifests write "/" for a choice.
        found["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    found["purl"] = purl(crate)
    if package["repository"]:
        found["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return found


def main():
    tree_file, metadata, lock, target = sys.argv[1:]
    with open(tree_file, encoding="utf-8") as file:
        root, edges, built = tree(file.read())
    with open(metadata, encoding="utf-8") as file:
        packages = {(one["name"], one["version"]): one for one in json.load(file)["packages"]}
    with open(lock, "rb") as file:
        checksums = {(one["name"], one["version"]): one.get("checksum") for one in tomllib.load(file)["package"]}
    crates = sorted(set(edges) - {root})
    own = component(root, packages[root], None, built) | {"type": "application"}
    del own["scope"]
    bom = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": own, "properties": [{"name": "hallpass:target", "value": target}]},
        "components": [component(crate, packages[crate], checksums[crate], built) for crate in crates],
        "dependencies": [
            {"ref": purl(crate), "dependsOn": sorted(map(purl, edges[crate]))} for crate in [root, *crates]
        ],
    }
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch:
        at = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc)
        bom["metadata"]["timestamp"] = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    # The same content has the same serial number.
    digest = hashlib.sha256(json.dumps(bom, sort_keys=True).encode()).hexdigest()
    bom["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, 'hallpass:sbom:' + digest)}"
    json.dump(bom, sys.stdout, indent=1, sort_keys=True)
    print()


main()
