//! A UDP peer that echoes datagrams, on two consecutive ports, for RTP and RTCP.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

pub struct Echo {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    /// Starts a peer on a free pair of ports of `ip`.
    pub fn start(ip: IpAddr) -> Echo {
        let pair = bind_pair(ip);
        let address = pair[0].local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let threads = pair.map(|socket| send_back(socket, stop.clone())).into();
        Echo { address, stop, threads }
    }

    /// The lower address of the two.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let Ok(waker) = UdpSocket::bind((self.address.ip(), 0)) else { return };
        for (thread, offset) in self.threads.drain(..).zip(0..) {
            // One datagram ends the blocking read of the thread.
            if waker.send_to(&[], (self.address.ip(), self.address.port() + offset)).is_ok() {
                let _ = thread.join();
            }
        }
    }
}

fn bind_pair(ip: IpAddr) -> [UdpSocket; 2] {
    for _ in 0..100 {
        let first = UdpSocket::bind((ip, 0)).unwrap_or_else(|error| panic!("no peer on {ip}: {error}"));
        let port = first.local_addr().unwrap().port();
        if let Some(Ok(second)) = port.checked_add(1).map(|next| UdpSocket::bind((ip, next))) {
            return [first, second];
        }
    }
    panic!("no two free ports in a row on {ip} in 100 tries");
}

fn send_back(socket: UdpSocket, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    // Hundreds of sessions send simultaneously; the default buffer holds about 270 small datagrams.
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
    thread::spawn(move || {
        let mut datagram = [0; 65536];
        while !stop.load(Ordering::Relaxed) {
            // The ICMP error of an earlier echo makes this call fail; ignore it.
            if let Ok((length, from)) = socket.recv_from(&mut datagram) {
                let _ = socket.send_to(&datagram[..length], from);
            }
        }
    })
}
