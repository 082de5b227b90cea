//! Handles: what C holds of an object of this library. They are numbers in the shape of
//! pointers, so that one which was destroyed, or is of another kind, is told apart.

use crate::error::Refusal;
use std::marker::PhantomData;
use std::sync::{Arc, PoisonError, RwLock};

const _: () = assert!(usize::BITS == 64, "a handle is a place, a serial and a kind");

/// All objects of one kind, behind handles of type `H`.
pub struct Handles<T, H> {
    kind: u8,
    /// What the header calls one, where it is an argument.
    field: &'static str,
    slots: RwLock<Slots<T>>,
    handle: PhantomData<fn(H)>,
}

struct Slots<T> {
    all: Vec<Slot<T>>,
    free: Vec<u32>,
}

struct Slot<T> {
    /// Of the object that is here, or of the next.
    serial: u32,
    object: Option<Arc<T>>,
}

/// Objects that a place may hold, one after the other.
const SERIALS: u32 = 1 << 24;

impl<T, H> Handles<T, H> {
    /// None yet. Each kind has a number of its own, above 0.
    pub const fn new(kind: u8, field: &'static str) -> Self {
        let slots = RwLock::new(Slots { all: Vec::new(), free: Vec::new() });
        Self { kind, field, slots, handle: PhantomData }
    }

    /// A handle of one more object.
    pub fn add(&self, object: T) -> *mut H {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let at = slots.free.pop().unwrap_or_else(|| {
            slots.all.push(Slot { serial: 0, object: None });
            slots.all.len() as u32 - 1
        });
        let slot = &mut slots.all[at as usize];
        slot.object = Some(Arc::new(object));
        let serial = usize::from(self.kind) << 24 | slot.serial as usize;
        std::ptr::without_provenance_mut(serial << 32 | at as usize)
    }

    /// The object behind a handle; it stays while it is used, whoever destroys it.
    pub fn get(&self, handle: *const H) -> Result<Arc<T>, Refusal> {
        if handle.is_null() {
            return Err(Refusal::Null(self.field));
        }
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let slot = self.place(handle).and_then(|(at, serial)| {
            slots.all.get(at as usize).filter(|slot| slot.serial == serial)
        });
        slot.and_then(|slot| slot.object.clone()).ok_or(Refusal::Stale(self.field))
    }

    /// Takes the object from behind a handle, which is of nothing from now on.
    pub fn remove(&self, handle: *mut H) {
        let Some((at, serial)) = self.place(handle) else { return };
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = slots.all.get_mut(at as usize) else { return };
        if slot.serial != serial || slot.object.is_none() {
            return;
        }
        slot.serial = (serial + 1) % SERIALS;
        let object = slot.object.take();
        // A place whose serials are used up is not taken again: no old handle comes alive.
        if slot.serial != 0 {
            slots.free.push(at);
        }
        // It may hold threads, which end now: others need not wait for that.
        drop(slots);
        drop(object);
    }

    /// Place and serial of a handle of this kind.
    fn place(&self, handle: *const H) -> Option<(u32, u32)> {
        let (serial, at) = (handle.addr() >> 32, handle.addr() as u32);
        (serial >> 24 == usize::from(self.kind)).then_some((at, serial as u32 % SERIALS))
    }
}

#[cfg(test)]
mod tests {
    use super::Handles;
    use crate::error::Refusal;

    #[test]
    fn a_handle_is_of_its_object_until_that_is_destroyed() {
        let (names, numbers) =
            (Handles::<_, u8>::new(1, "name"), Handles::<_, u8>::new(2, "number"));
        let (one, two) = (names.add("one"), names.add("two"));
        let seven = numbers.add(7);
        assert_eq!(
            (*names.get(one).expect("it is there"), *names.get(two).expect("too")),
            ("one", "two")
        );
        assert_eq!(names.get(seven), Err(Refusal::Stale("name")));
        let held = names.get(one).expect("it is there");
        names.remove(one);
        names.remove(one);
        assert_eq!((names.get(one), *held), (Err(Refusal::Stale("name")), "one"));
        // Its place is taken again, and the old handle is of nothing still.
        let three = names.add("three");
        assert_eq!(
            (names.get(one), *names.get(three).expect("new")),
            (Err(Refusal::Stale("name")), "three")
        );
        names.remove(seven);
        assert_eq!(*numbers.get(seven).expect("another kind did not take it"), 7);
        assert_eq!(numbers.get(std::ptr::null()), Err(Refusal::Null("number")));
        let wild = std::ptr::without_provenance(usize::MAX);
        assert_eq!(numbers.get(wild), Err(Refusal::Stale("number")));
    }
}
