//! The UDP listeners of a worker. They are added and removed while it runs.
//!
//! A client's link is the index of its listener, so an index stays with its address. A removed listener stays open for
//! the clients that have an allocation there, on all workers: the kernel chooses the worker of a datagram by the number
//! of open sockets, so closing one of them would move clients of the others.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::listener::Listener;
use crate::net::socket::UdpListener;
use crate::net::syscall::Epoll;

/// The listeners, by index.
pub(super) struct Listeners {
    epoll: Rc<Epoll>,
    /// Open listeners; `None` once a removed one is closed.
    open: Vec<Option<Listener>>,
    /// What is known of each, at the same index.
    slots: Vec<Slot>,
}

struct Slot {
    address: SocketAddr,
    /// Whether it was removed: only clients with an allocation are served.
    is_removed: bool,
    /// Held while clients of this worker have an allocation at a removed listener.
    in_use: Option<Arc<()>>,
}

impl Listeners {
    /// Registers the listeners of one worker with `epoll`, edge-triggered.
    ///
    /// # Errors
    /// As for [`Listeners::add`].
    pub fn new(epoll: Rc<Epoll>, listeners: Vec<UdpListener>) -> io::Result<Self> {
        let mut all = Self { epoll, open: Vec::new(), slots: Vec::new() };
        listeners.into_iter().try_for_each(|listener| all.add(listener))?;
        Ok(all)
    }

    /// Adds a listener. One that had this address before must be closed.
    ///
    /// # Errors
    /// The error of `epoll_ctl(2)`; `InvalidInput` for more than 65,536 addresses since the start.
    pub fn add(&mut self, listener: UdpListener) -> io::Result<()> {
        let address = listener.local;
        let listener = Listener::new(listener);
        let known = self.slots.iter().position(|slot| slot.address == address);
        listener.register(&self.epoll, known.unwrap_or(self.slots.len()))?;
        let slot = Slot { address, is_removed: false, in_use: None };
        match known {
            Some(index) => (self.open[index], self.slots[index]) = (Some(listener), slot),
            None => {
                self.open.push(Some(listener));
                self.slots.push(slot);
            }
        }
        Ok(())
    }

    /// Serves only clients with an allocation from now on. `in_use` is held until there are none.
    pub fn remove(&mut self, address: SocketAddr, in_use: &Arc<()>) {
        if let Some(slot) = self.slot(address) {
            (slot.is_removed, slot.in_use) = (true, Some(Arc::clone(in_use)));
        }
    }

    /// Serves all clients of a removed listener again. Returns its socket.
    pub fn revive(&mut self, address: SocketAddr) -> Option<UdpListener> {
        let index = self.slots.iter().position(|slot| slot.address == address)?;
        (self.slots[index].is_removed, self.slots[index].in_use) = (false, None);
        self.open[index].as_ref()?.duplicate().ok()
    }

    /// Closes a removed listener.
    pub fn close(&mut self, address: SocketAddr) {
        if let Some(index) = self.slots.iter().position(|slot| slot.address == address && slot.is_removed) {
            self.open[index] = None;
            self.slots[index].in_use = None;
        }
    }

    /// Sets the QUIC server that shares the port of a listener.
    pub fn set_quic(&mut self, address: SocketAddr, quic: Option<SocketAddr>) {
        let index = self.slots.iter().position(|slot| slot.address == address);
        if let Some(listener) = index.and_then(|index| self.open[index].as_mut()) {
            listener.quic = quic;
        }
    }

    /// Returns the removed listeners that are held open by clients of this worker.
    pub fn held(&self) -> Vec<u16> {
        let held = self.slots.iter().enumerate().filter(|(_, slot)| slot.in_use.is_some());
        held.map(|(index, _)| index as u16).collect()
    }

    /// Whether any removed listener is held open.
    pub fn has_held(&self) -> bool {
        self.slots.iter().any(|slot| slot.in_use.is_some())
    }

    /// Records that no client of this worker needs a removed listener any more.
    pub fn release(&mut self, index: u16) {
        if let Some(slot) = self.slots.get_mut(usize::from(index)) {
            slot.in_use = None;
        }
    }

    /// Whether only clients with an allocation are served.
    pub fn is_removed(&self, index: u16) -> bool {
        self.slots.get(usize::from(index)).is_some_and(|slot| slot.is_removed)
    }

    /// Returns an open listener.
    pub fn get(&self, index: u16) -> Option<&Listener> {
        self.open.get(usize::from(index))?.as_ref()
    }

    /// Returns an open listener, to change it.
    pub fn get_mut(&mut self, index: u16) -> Option<&mut Listener> {
        self.open.get_mut(usize::from(index))?.as_mut()
    }

    /// Returns the listeners by index.
    pub fn all(&self) -> &[Option<Listener>] {
        &self.open
    }

    fn slot(&mut self, address: SocketAddr) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.address == address)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn bound() -> UdpListener {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let local = socket.local_addr().expect("local");
        UdpListener { socket, local, wildcard: false, quic: None }
    }

    #[test]
    fn an_address_keeps_its_index_while_listeners_come_and_go() {
        let (first, second) = (bound(), bound());
        let (kept, moving) = (first.local, second.local);
        let mut listeners =
            Listeners::new(Rc::new(Epoll::new().expect("epoll")), vec![first, second]).expect("room");
        let in_use = Arc::new(());
        for _ in 0..100 {
            listeners.remove(moving, &in_use);
            assert!(listeners.is_removed(1) && listeners.get(1).is_some() && listeners.held() == [1]);
            listeners.release(1);
            assert!(Arc::strong_count(&in_use) == 1 && !listeners.has_held());
            listeners.close(moving);
            assert!(listeners.get(1).is_none());
            let again = UdpSocket::bind(moving).expect("the port is free");
            let again = UdpListener { socket: again, local: moving, wildcard: false, quic: None };
            listeners.add(again).expect("room");
            assert!(!listeners.is_removed(1) && listeners.get(1).is_some());
        }
        assert_eq!(listeners.all().len(), 2);
        listeners.close(kept);
        assert!(listeners.get(0).is_some(), "only a removed one is closed");
        listeners.remove(kept, &in_use);
        assert!(listeners.revive(kept).is_some_and(|socket| socket.local == kept));
        assert!(!listeners.is_removed(0) && Arc::strong_count(&in_use) == 1);
    }
}
