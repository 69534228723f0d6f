//! TURN REST credentials, computed independently of the server by Python's standard library.

use super::tool::run_ok;
use std::time::Duration;

#[derive(Clone)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

const SCRIPT: &str = "\
import base64, hashlib, hmac, sys, time
name = '%d:%s' % (time.time() + int(sys.argv[3]), sys.argv[2])
mac = hmac.new(sys.argv[1].encode(), name.encode(), hashlib.sha1).digest()
print(name)
print(base64.b64encode(mac).decode())
";

/// Credentials for `user` that expire `ttl_seconds` from now (negative: expired already).
pub fn rest(secret: &str, user: &str, ttl_seconds: i64) -> Credentials {
    let ttl = ttl_seconds.to_string();
    let printed = run_ok("/usr/bin/python3", &["-c", SCRIPT, secret, user, &ttl], Duration::from_secs(20));
    let mut lines = printed.lines().map(str::to_owned);
    let (Some(username), Some(password)) = (lines.next(), lines.next()) else {
        panic!("python printed {printed:?}");
    };
    Credentials { username, password }
}

const NAMED: &str = "\
import base64, hashlib, hmac, sys
mac = hmac.new(sys.argv[1].encode(), sys.argv[2].encode(), hashlib.sha1).digest()
print(base64.b64encode(mac).decode())
";

/// Returns the password of any user name under `secret`, whether or not it follows the REST scheme.
pub fn named(secret: &str, username: &str) -> Credentials {
    let args = ["-c", NAMED, secret, username];
    let printed = run_ok("/usr/bin/python3", &args, Duration::from_secs(20));
    Credentials { username: username.to_owned(), password: printed.trim().to_owned() }
}

const KEY: &str = "import hashlib, sys\nprint(hashlib.md5(sys.argv[1].encode()).hexdigest())";

/// Computes the long-term key, MD5(username:realm:password), also in Python.
pub fn long_term_key(credentials: &Credentials, realm: &str) -> Vec<u8> {
    let text = format!("{}:{realm}:{}", credentials.username, credentials.password);
    from_hex(run_ok("/usr/bin/python3", &["-c", KEY, &text], Duration::from_secs(20)).trim())
}

fn from_hex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

const MANY: &str = "\
import base64, hashlib, hmac, sys
secret, realm, first, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for expiry in range(first, first + count):
    name = '%d:many' % expiry
    password = base64.b64encode(hmac.new(secret.encode(), name.encode(), hashlib.sha1).digest()).decode()
    print(name, hashlib.md5(f'{name}:{realm}:{password}'.encode()).hexdigest())
";

/// Returns names of one user that expire at `first` and the seconds after it, with their long-term keys.
pub fn many(secret: &str, realm: &str, first: u64, count: usize) -> Vec<(String, Vec<u8>)> {
    let (first, count) = (first.to_string(), count.to_string());
    let args = ["-c", MANY, secret, realm, &first, &count];
    let printed = run_ok("/usr/bin/python3", &args, Duration::from_secs(20));
    let lines = printed.lines().map(|line| line.split_once(' ').expect("a name and a key"));
    lines.map(|(name, key)| (name.to_owned(), from_hex(key))).collect()
}
