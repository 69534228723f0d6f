//! What recvmmsg and sendmmsg are told: headers that point to everything else.

use std::mem::zeroed;
use std::ptr;

use libc::{c_void, iovec, mmsghdr, socklen_t};

use super::BATCH;
use super::address::Name;
use super::control::Control;

/// The kernel's view of one batch: headers that point to names, control buffers and payloads.
pub(super) struct Arrays {
    pub headers: Vec<mmsghdr>,
    vectors: Vec<iovec>,
    pub names: Vec<Name>,
    pub controls: Vec<Control>,
}

impl Arrays {
    pub fn new() -> Self {
        // SAFETY: null pointers and zero lengths are values of both structures.
        let (header, vector) = unsafe { (zeroed::<mmsghdr>(), zeroed::<iovec>()) };
        Self {
            headers: vec![header; BATCH],
            vectors: vec![vector; BATCH],
            names: vec![Name::empty(); BATCH],
            controls: vec![Control([0; 128]); BATCH],
        }
    }

    /// Points header `index` to its name, its control buffer (`control` bytes of it) and `len` bytes at `base`.
    pub fn point(&mut self, index: usize, base: *mut u8, len: usize, name: socklen_t, control: usize) {
        self.vectors[index] = iovec { iov_base: base.cast(), iov_len: len };
        let header = &mut self.headers[index];
        header.msg_len = 0;
        header.msg_hdr.msg_name = (&raw mut self.names[index]).cast();
        header.msg_hdr.msg_namelen = name;
        header.msg_hdr.msg_iov = &raw mut self.vectors[index];
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control =
            if control == 0 { ptr::null_mut() } else { self.controls[index].0.as_mut_ptr().cast::<c_void>() };
        header.msg_hdr.msg_controllen = control as _;
        header.msg_hdr.msg_flags = 0;
    }
}
