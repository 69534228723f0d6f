//! The arguments of recvmmsg and sendmmsg: headers that point to everything else.

use std::mem::zeroed;
use std::ops::Range;
use std::ptr;

use libc::{c_void, iovec, mmsghdr, socklen_t};

use super::address::Name;
use super::control::Control;

/// Datagrams per receive or send call. A wake-up rarely finds more, and 64 of them stay within the L2 cache.
pub const BATCH: usize = 64;

/// The kernel's view of one batch: headers that point to names, control buffers and pieces of payload.
pub(super) struct Arrays {
    pub headers: Vec<mmsghdr>,
    pub pieces: Vec<iovec>,
    pub names: Vec<Name>,
    pub controls: Vec<Control>,
}

impl Arrays {
    /// Allocates the arrays for [`BATCH`] messages in at most `pieces` pieces of memory.
    pub fn new(pieces: usize) -> Self {
        // SAFETY: null pointers and zero lengths are valid values of both structures.
        let (header, piece) = unsafe { (zeroed::<mmsghdr>(), zeroed::<iovec>()) };
        Self {
            headers: vec![header; BATCH],
            pieces: vec![piece; pieces],
            names: vec![Name::empty(); BATCH],
            controls: vec![Control([0; 128]); BATCH],
        }
    }

    /// Points header `index` to its name (`name` bytes), its control buffer (`control` bytes) and `pieces`.
    pub fn point(&mut self, index: usize, pieces: Range<usize>, name: socklen_t, control: usize) {
        let pieces = &mut self.pieces[pieces];
        let header = &mut self.headers[index];
        header.msg_len = 0;
        header.msg_hdr.msg_name = (&raw mut self.names[index]).cast();
        header.msg_hdr.msg_namelen = name;
        header.msg_hdr.msg_iov = pieces.as_mut_ptr();
        header.msg_hdr.msg_iovlen = pieces.len() as _;
        header.msg_hdr.msg_control =
            if control == 0 { ptr::null_mut() } else { self.controls[index].0.as_mut_ptr().cast::<c_void>() };
        header.msg_hdr.msg_controllen = control as _;
        header.msg_hdr.msg_flags = 0;
    }
}
