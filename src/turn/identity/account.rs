//! Accounts: what quotas and rates are counted by.

use std::sync::Arc;

/// The owner of allocations, permissions and channels that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Account {
    /// A user: the part of a REST name after the first colon, or the name of a static user.
    User(Arc<str>),
    /// A name without a user part, such as a time stamp alone. Many people may share it, so limits that fit one person do
    /// not apply. It is still one credential, which one client can use from any number of addresses.
    Name(Arc<str>),
}
