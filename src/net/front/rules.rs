//! The operator's settings of the front door, which a reload replaces.

use std::io;
use std::sync::Arc;

use super::Front;
use super::first_bytes::Web;
use crate::net::common_change::CommonChange;
use crate::net::socket::StreamListener;
use crate::net::stream::tls::TlsChooser;

impl Front {
    /// Returns the settings that outlive a restart of the worker.
    pub fn into_rules(self) -> (Option<Arc<dyn TlsChooser>>, Option<Arc<Web>>) {
        (self.tls, self.web.into_rules())
    }

    /// Replaces the certificates for new connections.
    pub fn set_tls(&mut self, chooser: Arc<dyn TlsChooser>) {
        self.tls = Some(chooser);
    }

    /// Changes the stream listeners.
    ///
    /// # Errors
    /// The error of `epoll_ctl(2)`; `InvalidInput` for more than 65,536 listeners.
    pub fn change_listeners(&mut self, added: Vec<StreamListener>, change: &CommonChange) -> io::Result<()> {
        self.acceptors.change(change);
        added.into_iter().try_for_each(|listener| self.acceptors.add(listener))
    }

    /// Replaces the web servers for new connections.
    pub fn set_web(&mut self, web: Arc<Web>) {
        self.web.set(web);
    }
}
