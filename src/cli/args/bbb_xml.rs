//! `hallpass bbb-xml`.

use std::path::PathBuf;

use clap::Args;

use super::server_name::server_name;

/// The default of --ttl in seconds: that of BigBlueButton's own file.
pub const BBB_XML_TTL: u32 = 86_400;

/// The default of --bbb-user.
pub const BBB_USER: &str = "bigbluebutton";

/// The help text after the options.
pub const BBB_XML_EXAMPLES: &str = "\
Without --output and --verify the list is printed. It contains the secret.

With --output the entries of the relays are put into FILE. Servers of others, comments and unused beans in it stay as they \
are. FILE is replaced as a whole or not at all, and written only if something changes. It keeps its owner and mode, except \
that other users lose their rights and bbb-web's user gets the right to read it. A new file belongs to root and bbb-web's \
group and has mode 0640. Run this command as root, then restart bbb-web, which reads the file only at its start.

With --verify nothing is written. A file is good if every relay has at least one URL in it, and each of its entries has a \
port of a listener, the newest secret and the lifetime. URLs that are missing and servers of others are only noted. Upgrades \
of BigBlueButton may replace the file: /usr/share/hallpass/bbb has a systemd timer that verifies it every day.

A configuration for this command needs no more than realm, [[listen]] and the [[host]]. Of each transport two URLs are \
listed, UDP 3478 and TCP and TLS 443 first. A listener behind a proxy has the URL of its `public`.

Examples:
  hallpass bbb-xml --config relay.toml --host ping --output /etc/bigbluebutton/turn-stun-servers.xml
  hallpass bbb-xml --config relay.toml --config socket.toml --host ping --output /etc/bigbluebutton/turn-stun-servers.xml
  hallpass bbb-xml --config relay.toml --public-name relay.example.org --verify /etc/bigbluebutton/turn-stun-servers.xml

Exit status: 0 printed, written, unchanged or good; 1 the file differs from the configuration, bbb-web cannot read it, every \
user can, or an error, after which the old file is unchanged; 2 wrong usage.";

/// `hallpass bbb-xml`.
#[derive(Args, Debug)]
pub struct BbbXmlArgs {
    /// Configuration file; once for each relay. Default: /etc/hallpass/hallpass.toml
    #[arg(long, short, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// Name under which browsers reach the relay; once for each --config in the same order, or several names for one
    /// --config. Default: the realm
    #[arg(long, value_name = "NAME", value_parser = server_name)]
    pub public_name: Vec<String>,
    /// The `[[host]]` of the BigBlueButton server, if the configuration has several; once for all, or once for each --config
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,
    /// Lifetime of the credentials that BigBlueButton issues
    #[arg(long, value_name = "SECONDS", default_value_t = BBB_XML_TTL, value_parser = super::number::lifetime)]
    pub ttl: u32,
    /// List every URL of a relay instead of two of each transport
    #[arg(long)]
    pub all: bool,
    /// Put the entries into this file instead of printing a list
    #[arg(long, short, value_name = "XMLFILE", conflicts_with = "verify")]
    pub output: Option<PathBuf>,
    /// Write the file of --output anew, without what is in it: servers of others are removed
    #[arg(long, requires = "output")]
    pub replace: bool,
    /// Compare this file with the configuration; - is standard input
    #[arg(long, value_name = "XMLFILE")]
    pub verify: Option<PathBuf>,
    /// User that runs bbb-web
    #[arg(long, value_name = "NAME", default_value = BBB_USER)]
    pub bbb_user: String,
}
