//! The send queue: requests by id, data as encoded messages.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::SendError;
use super::data::channel_head;
use super::transaction::Transactions;
use crate::wire::channel_data::padding;
use crate::wire::writer::{DATA_MAX, write_send_head};

/// Maximum number of data messages in the queue.
const MESSAGES_MAX: usize = 64;
/// Maximum number of bytes in them.
const BYTES_MAX: usize = 256 << 10;
/// The longest UDP payload over IPv4 (RFC 768): 65,535 minus the IP and UDP headers.
const DATAGRAM_MAX: usize = 65_507;

#[derive(Debug)]
enum Item {
    Request([u8; 12]),
    Data(Vec<u8>),
}

/// The send queue.
#[derive(Debug)]
pub(super) struct Outgoing {
    is_stream: bool,
    queue: VecDeque<Item>,
    /// Messages and bytes of data in the queue.
    messages: usize,
    bytes: usize,
    /// The data message that [`Outgoing::next`] returned last.
    sending: Vec<u8>,
}

impl Outgoing {
    pub(super) fn new(is_stream: bool) -> Self {
        Self { is_stream, queue: VecDeque::new(), messages: 0, bytes: 0, sending: Vec::new() }
    }

    /// Queues a request unless it is in the queue already.
    pub(super) fn push_request(&mut self, id: [u8; 12]) {
        if !self.queue.iter().any(|item| matches!(item, Item::Request(queued) if *queued == id)) {
            self.queue.push_back(Item::Request(id));
        }
    }

    /// Removes a request that has ended.
    pub(super) fn forget_request(&mut self, id: &[u8; 12]) {
        self.queue.retain(|item| !matches!(item, Item::Request(queued) if queued == id));
    }

    pub(super) fn push_channel(&mut self, number: u16, payload: &[u8]) -> Result<(), SendError> {
        let len = u16::try_from(payload.len()).map_err(|_| SendError::TooLong)?;
        let mut message = Vec::with_capacity(4 + payload.len() + 3);
        message.extend_from_slice(&channel_head(number, len));
        message.extend_from_slice(payload);
        if self.is_stream {
            message.resize(message.len() + padding(message.len()), 0);
        }
        self.push(message)
    }

    pub(super) fn push_indication(
        &mut self,
        peer: SocketAddr,
        payload: &[u8],
        transaction_id: [u8; 12],
    ) -> Result<(), SendError> {
        if payload.len() > DATA_MAX {
            return Err(SendError::TooLong);
        }
        let mut message = Vec::with_capacity(payload.len() + 64);
        write_send_head(&mut message, peer, payload.len(), false, transaction_id);
        message.extend_from_slice(payload);
        message.resize(message.len() + padding(message.len()), 0);
        self.push(message)
    }

    fn push(&mut self, message: Vec<u8>) -> Result<(), SendError> {
        if !self.is_stream && message.len() > DATAGRAM_MAX {
            return Err(SendError::TooLong);
        }
        if self.messages >= MESSAGES_MAX || self.bytes + message.len() > BYTES_MAX {
            return Err(SendError::Waiting);
        }
        self.messages += 1;
        self.bytes += message.len();
        self.queue.push_back(Item::Data(message));
        Ok(())
    }

    pub(super) fn next<'a>(&'a mut self, transactions: &'a Transactions) -> Option<&'a [u8]> {
        loop {
            match self.queue.pop_front()? {
                Item::Data(message) => {
                    self.messages -= 1;
                    self.bytes -= message.len();
                    self.sending = message;
                    return Some(&self.sending);
                }
                Item::Request(id) => {
                    if let Some(transaction) = transactions.get(&id) {
                        return Some(&transaction.bytes);
                    }
                }
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        (self.messages, self.bytes) = (0, 0);
    }
}
