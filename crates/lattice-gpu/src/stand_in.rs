//! One handle in place of every buffer, while a launch is shown to somebody who does not run it.

use std::cell::RefCell;

use cubecl::server::Handle;

thread_local! {
    /// What stands for every buffer.
    static STAND_IN: RefCell<Option<Handle>> = const { RefCell::new(None) };
}

/// The handle that stands for every buffer on this thread now.
pub(crate) fn stand_in() -> Option<Handle> {
    STAND_IN.with_borrow(Clone::clone)
}

/// Shows a launch whose buffers are all one handle, and no longer, whatever becomes of it.
pub(crate) fn in_place_of_buffers(handle: &Handle, show: impl FnOnce()) {
    struct Showing;
    impl Drop for Showing {
        fn drop(&mut self) {
            STAND_IN.set(None);
        }
    }
    STAND_IN.set(Some(handle.clone()));
    let _showing = Showing;
    show();
}

#[cfg(test)]
mod tests {
    use std::any::TypeId;

    use cubecl_common::device::{DeviceId, ServiceId};
    use cubecl_environment::stream::StreamId;

    use super::*;

    #[test]
    fn nothing_stands_in_for_buffers_outside_of_a_showing() {
        let service = ServiceId { device: DeviceId::new(0x4BFE, 0), service: TypeId::of::<()>() };
        let handle = Handle::new(service, StreamId { value: 0 }, 16);
        let stopped = std::panic::catch_unwind(|| {
            in_place_of_buffers(&handle, || {
                assert!(stand_in().is_some(), "while it is shown");
                panic!("as a launch that is refused does")
            })
        });
        assert!(stopped.is_err() && stand_in().is_none());
    }
}
