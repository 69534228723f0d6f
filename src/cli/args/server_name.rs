//! The name of a server as an argument.

/// Parses a host name or an address without a port. Returns IPv6 addresses without brackets.
///
/// # Errors
/// A message for the user if `text` is neither.
pub fn server_name(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let is_name = !bare.is_empty()
        && !bare.starts_with('-')
        && bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    if is_name || bare.parse::<std::net::Ipv6Addr>().is_ok() {
        Ok(bare.to_owned())
    } else {
        Err("write a host name or an address, without scheme or port".to_owned())
    }
}
