//! Who may use the relay: secrets, users, and everything that makes coturn an open relay or sends it to a database.

use crate::coturn::input::Input;
use crate::coturn::options::Key;
use crate::coturn::report::Status;
use crate::coturn::values;
use crate::coturn::work::{Work, origin};

/// coturn's database if no line names one, as Debian builds it.
const DEFAULT_DATABASE: &str = "/var/lib/turn/turndb";
/// Longest realm and user name that a configuration may have.
const REALM_BYTES_MAX: usize = 52;
const USERNAME_BYTES_MAX: usize = 508;
const NEW_SECRET: &str =
    "make one with openssl rand -base64 32, and give it to the server that issues credentials, too";
/// Keys in front of a secret that was copied with its whole line.
const COPIED: [&str; 2] = ["static-auth-secret", "secret"];

/// How coturn authenticates, as its options set it one after the other.
#[derive(Default)]
struct Mechanism {
    /// Whether credentials are required (`use_lt_credentials`).
    required: bool,
    /// Whether everybody is served (`anon_credentials`).
    anonymous: bool,
    /// Whether time-limited credentials are used; then users are ignored.
    rest: bool,
}

/// Translates realm, secrets and users.
pub(super) fn translate(work: &mut Work, input: &Input<'_>) {
    realm(work);
    let mechanism = mechanism(work);
    secrets(work);
    users(work, mechanism.rest);
    databases(work);
    separator(work, mechanism.rest);
    verdict(work, &mechanism, input);
    work.from("secret", &[Key::StaticAuthSecret, Key::UseAuthSecret, Key::LtCredMech]);
    work.from("user", &[Key::User, Key::LtCredMech]);
}

fn realm(work: &mut Work) {
    let Some(index) = work.last(Key::Realm) else {
        if work.by_key.contains_key(&Key::Realm) {
            return;
        }
        return work.note(
            "no realm: coturn uses the domain name of the machine, or none; here the realm is \"hallpass\"",
            "write realm = \"relay.example.org\"; clients learn it from the server",
        );
    };
    let written = String::from_utf8_lossy(work.value(index)).into_owned();
    let mut realm: String = written.chars().filter(|c| !c.is_control() && *c != '\u{fffd}').collect();
    for scheme in ["turns:", "turn:", "stuns:", "stun:", "https:", "http:"] {
        if realm.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)) {
            realm = realm[scheme.len()..].trim_start_matches('/').to_owned();
        }
    }
    realm = realm.replace("://", "-");
    while realm.len() > REALM_BYTES_MAX {
        realm.pop();
    }
    if realm.is_empty() {
        work.differs(index, "an empty realm; here it is \"hallpass\"", "write realm = \"relay.example.org\"");
        return;
    }
    if realm == written {
        work.kept(index, "realm");
    } else {
        let reason = format!("a realm is a name of at most {REALM_BYTES_MAX} bytes, so it is shortened");
        work.differs(
            index,
            reason,
            "nothing: clients learn it from the server; long-term keys would have to be made again",
        );
    }
    work.meaning.realm = Some(realm);
    work.from("realm", &[Key::Realm]);
}

/// Replays the options in their order.
fn mechanism(work: &mut Work) -> Mechanism {
    let mut mechanism = Mechanism::default();
    let order: Vec<(usize, Key)> = {
        let keys = [Key::LtCredMech, Key::NoAuth, Key::UseAuthSecret, Key::StaticAuthSecret];
        let mut order: Vec<(usize, Key)> = keys
            .into_iter()
            .flat_map(|key| work.all(key).into_iter().map(move |index| (index, key)))
            .collect();
        order.sort_unstable();
        order
    };
    for (index, key) in order {
        let is_set = values::flag(work.value(index)) == Some(true);
        match key {
            Key::LtCredMech => mechanism.required = is_set,
            Key::NoAuth => mechanism.anonymous = is_set,
            // Both ignore their value.
            _ => (mechanism.required, mechanism.rest) = (true, true),
        }
    }
    let (lt, index) = work.flag(Key::LtCredMech);
    if let Some(index) = index {
        match (lt, mechanism.rest) {
            (true, true) => work.kept(index, "credentials are required; with a secret coturn ignores users"),
            (true, false) => work.kept(index, "credentials are always required"),
            (false, _) => work.differs(
                index,
                "credentials are always required",
                "nothing: hallpass cannot serve clients without credentials",
            ),
        }
    }
    if let Some(index) = work.set(Key::NoAuth) {
        let remedy = format!("remove the line and add static-auth-secret=...: {NEW_SECRET}");
        work.judge(index, Status::Refused, "this serves everybody without credentials", Some(remedy));
    }
    if let Some(index) = work.last(Key::UseAuthSecret) {
        work.kept(index, "time-limited credentials (TURN REST)");
    }
    mechanism
}

fn secrets(work: &mut Work) {
    for index in work.all(Key::StaticAuthSecret) {
        let value = work.value(index);
        let text = values::text(value).map(str::to_owned);
        let Some(secret) = text else {
            let remedy = format!("the secret is not plain text: {NEW_SECRET}");
            work.judge(
                index,
                Status::Refused,
                "the secret contains control characters or bytes that are not UTF-8",
                Some(remedy),
            );
            continue;
        };
        let is_copied = COPIED.iter().any(|key| {
            let rest = secret.trim_start().strip_prefix(key);
            rest.is_some_and(|rest| rest.trim_start().starts_with('='))
        });
        if secret.is_empty() {
            let remedy = format!("write a secret: {NEW_SECRET}");
            work.judge(index, Status::Refused, "the secret is empty, which lets everybody in", Some(remedy));
        } else if is_copied {
            let reason = "the secret contains the name of the option, so it is a line that was pasted twice";
            work.judge(
                index,
                Status::Refused,
                reason,
                Some("keep only what follows the last = sign before the secret".to_owned()),
            );
        } else if work.meaning.secrets.contains(&secret) {
            work.idle(index, "the same secret as on an earlier line");
        } else {
            let (reason, remedy) = remark(&secret);
            work.judge(index, Status::Kept, reason, remedy.map(str::to_owned));
            work.meaning.secrets.push(secret);
        }
    }
}

/// What is worth saying about a secret: quotes and comments that are part of it.
fn remark(secret: &str) -> (&'static str, Option<&'static str>) {
    const ISSUER: &str = "the server that issues credentials must have exactly this text; if it has less, correct it there or here";
    let quoted =
        |open: char, close: char| secret.starts_with(open) && secret.ends_with(close) && secret.len() > 1;
    if secret.contains(" #") || secret.contains("\t#") || secret.contains(" ;") {
        return (
            "WARNING: the comment behind the secret is a part of the secret: comments need a line of their own",
            Some(ISSUER),
        );
    }
    if quoted('\'', '\'') || secret.starts_with(['\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}']) {
        return (
            "the quotes are a part of the secret: coturn takes off plain double quotes only",
            Some(ISSUER),
        );
    }
    ("secret of the one [[host]]", None)
}

fn users(work: &mut Work, rest: bool) {
    let mut seen: Vec<(String, usize)> = Vec::new();
    for index in work.all(Key::User) {
        if rest {
            work.idle(index, "with a secret, coturn ignores every user");
            continue;
        }
        let value = work.value(index).to_vec();
        let Some((name, password)) = split(&value) else {
            work.idle(index, "coturn ignores it: it is not NAME:PASSWORD");
            continue;
        };
        if !is_answered(name) {
            work.idle(
                index,
                "nobody logs in with it: coturn answers 400 to names with blanks, quotes or a backslash",
            );
            continue;
        }
        let Some(name) =
            values::text(name).filter(|name| name.len() <= USERNAME_BYTES_MAX).map(str::to_owned)
        else {
            let remedy = "give the user another name";
            work.judge(
                index,
                Status::Refused,
                "the name contains control characters, is not UTF-8, or is too long",
                Some(remedy.to_owned()),
            );
            continue;
        };
        if let Some(at) = seen.iter().position(|(other, _)| *other == name) {
            let (_, earlier) = seen.remove(at);
            let place = origin(work.items[index].0);
            work.idle(earlier, format!("replaced: {place}"));
            work.meaning.users.retain(|(other, _)| *other != name);
            work.meaning.users_without_password.retain(|other| *other != name);
        }
        seen.push((name.clone(), index));
        let shown = values::shown(name.as_bytes());
        if values::is_key(password) {
            let remedy = format!("set a new password for {shown}: a [[user]] with name and password");
            let reason = format!("{shown} has a long-term key, from which the password cannot be computed");
            work.judge(index, Status::Refused, reason, Some(remedy));
            work.meaning.users_without_password.push(name);
        } else if let Some(password) = values::text(password).map(str::to_owned) {
            work.kept(index, format!("[[user]] {shown}"));
            work.meaning.users.push((name, password));
        } else {
            let remedy = format!("set a new password for {shown}");
            let reason = format!("{shown}: the password contains control characters or is not UTF-8");
            work.judge(index, Status::Refused, reason, Some(remedy));
            work.meaning.users_without_password.push(name);
        }
    }
}

/// Whether coturn looks for the user at all (`is_secure_string`).
fn is_answered(name: &[u8]) -> bool {
    let lower = name.to_ascii_lowercase();
    let has = |word: &[u8]| lower.windows(word.len()).any(|part| part == word);
    let has_marks = name.iter().any(|byte| b" \t'\"\n\r\\".contains(byte));
    let is_query = has(b"union") && has(b"select");
    !has_marks && !is_query
}

/// Divides `NAME:PASSWORD` at the first colon. Blanks in front of the password do not count.
fn split(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = value.iter().position(|&byte| byte == b':')?;
    let (name, rest) = (&value[..colon], &value[colon + 1..]);
    let start = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n'))?;
    (!name.is_empty()).then_some((name, &rest[start..]))
}

fn databases(work: &mut Work) {
    for index in work.all(Key::UserDb) {
        let remedy = "if it has secrets for this realm, print them with turnadmin -S and add static-auth-secret=... for each; \
                      give users of it a [[user]] with a new password";
        work.judge(
            index,
            Status::Refused,
            "there is no database: what is in it is not imported",
            Some(remedy.to_owned()),
        );
    }
    if let Some(index) = work.set(Key::OAuth) {
        let remedy = "let clients use time-limited credentials, which come from a secret";
        work.judge(index, Status::Refused, "OAuth (RFC 7635) is not offered", Some(remedy.to_owned()));
    }
}

fn separator(work: &mut Work, rest: bool) {
    let Some(index) = work.last(Key::RestApiSeparator) else { return };
    match work.value(index).first() {
        None | Some(b':') => work.kept(index, "the separator is always a colon"),
        Some(_) if !rest => work.idle(index, "there are no time-limited credentials"),
        Some(_) => work.refuse_whole(
            index,
            "user names must be EXPIRY:USER, with a colon",
            "make the server that issues credentials write a colon, and remove this line",
        ),
    }
}

/// Refuses what would serve everybody or nobody.
fn verdict(work: &mut Work, mechanism: &Mechanism, input: &Input<'_>) {
    let add = format!("add a secret: static-auth-secret=...; {NEW_SECRET}");
    let has_users = !work.meaning.users.is_empty();
    // A placeholder or a value that cannot be read is already a reason.
    let lost = work.report.refusals.len();
    if mechanism.anonymous && mechanism.required {
        work.refuse("no-auth and credentials exclude each other, and coturn does not start", add);
    } else if mechanism.anonymous || mechanism.rest && !mechanism.required {
        work.refuse("this server relays for everybody; hallpass does not do that", add);
    } else if mechanism.rest && work.meaning.secrets.is_empty() {
        match work.all(Key::StaticAuthSecret).is_empty() {
            true if lost > 0 && work.by_key.contains_key(&Key::StaticAuthSecret) => {}
            true => refuse_database(work, input),
            false => work.refuse("no secret can be taken", add),
        }
    } else if !mechanism.rest && !has_users {
        let written = work.by_key.contains_key(&Key::User);
        if written && (lost > 0 || !work.meaning.users_without_password.is_empty()) {
            work.refuse("no user can be taken", "give one of the users a new password: user=NAME:PASSWORD");
        } else if mechanism.required {
            refuse_database(work, input);
        } else {
            work.refuse("this server relays for everybody, because there are no credentials; hallpass does not do that", add);
        }
    }
    default_database(work, mechanism, input);
    if has_users && work.all(Key::UserQuota).is_empty() {
        work.note(
            "each user has at most 500 allocations and the other limits of [limits] per user; coturn has none",
            "if many people share a user name, write a larger allocations_per_user, requests_per_user and packets_per_user",
        );
    }
}

/// Says that coturn also takes secrets or users from a database that no line names.
fn default_database(work: &mut Work, mechanism: &Mechanism, input: &Input<'_>) {
    let Some(file) = input.default_database.filter(|_| !work.by_key.contains_key(&Key::UserDb)) else {
        return;
    };
    if work.report.is_refused() || mechanism.anonymous {
        return;
    }
    let (what, add) = match mechanism.rest {
        true => ("secrets", "add static-auth-secret=... for each of its secrets"),
        false => ("users", "add user=NAME:PASSWORD for each of its users, with a new password"),
    };
    let rows = match mechanism.rest {
        true => "select realm, value from turn_secret",
        false => "select realm, name from turnusers_lt",
    };
    work.note(
        format!("not offered: coturn also takes {what} and rules for peers from its database {file}, which is on this machine"),
        format!(
            "list them: sqlite3 {file} '{rows}; select realm, ip_range from denied_peer_ip; select realm, ip_range from \
             allowed_peer_ip'; if it prints anything for this realm, {add} and import again"
        ),
    );
}

/// The secrets or users are in a database, or on another command line.
fn refuse_database(work: &mut Work, input: &Input<'_>) {
    let realm = work.meaning.realm.clone().unwrap_or_else(|| "REALM".to_owned());
    let realm = values::shown(realm.as_bytes()).replace(['\'', '"'], "?");
    let named = work.all(Key::UserDb).last().and_then(|index| work.entries.get(index));
    let sqlite = named.filter(|entry| matches!(entry.row.name, "userdb" | "db"));
    let (place, option) = match (named, sqlite) {
        (_, Some(entry)) => {
            let file = values::shown(&entry.value);
            (format!("the database {file}"), format!(" -b '{}'", file.replace('\'', "?")))
        }
        (Some(entry), None) => {
            (format!("the database of {}", entry.row.name), " and the same database option".to_owned())
        }
        (None, None) => match input.default_database {
            Some(file) => (format!("coturn's default database {file}"), String::new()),
            None => (
                format!("coturn's default database {DEFAULT_DATABASE}, which this machine does not have"),
                String::new(),
            ),
        },
    };
    let what = if work.all(Key::UseAuthSecret).is_empty() { "users" } else { "secrets" };
    work.refuse(
        format!("there are no {what} here: coturn reads them from {place}, or gets them on its command line"),
        format!(
            "print the secrets with `turnadmin -S{option} -r '{realm}'`, add static-auth-secret=... for each and import again, or \
             put the secret into a file and name it as secret_file in [[host]]; if the service's command line has it \
             (systemctl cat coturn, docker inspect), repeat those arguments: hallpass import-coturn FILE -- ARGUMENTS"
        ),
    );
}
