//! A list that as a rule has one element, and then takes no memory besides that.

use std::fmt;
use std::ops::Deref;

/// A list that never changes; read as a slice.
#[derive(Clone, PartialEq, Eq)]
pub struct Few<T>(Shape<T>);

/// Always the smallest one for so many.
#[derive(Clone, PartialEq, Eq)]
enum Shape<T> {
    None,
    One(T),
    Many(Box<[T]>),
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Shape::None)
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Shape::None => &[],
            Shape::One(one) => std::slice::from_ref(one),
            Shape::Many(many) => many,
        }
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        let mut all = all.into_iter();
        let Some(first) = all.next() else { return Self::default() };
        match all.next() {
            None => Self(Shape::One(first)),
            Some(second) => Self(Shape::Many([first, second].into_iter().chain(all).collect())),
        }
    }
}

impl<T, const N: usize> From<[T; N]> for Few<T> {
    fn from(all: [T; N]) -> Self {
        all.into_iter().collect()
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: fmt::Debug> fmt::Debug for Few<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::NetworkAddress;

    #[test]
    fn it_has_what_it_was_made_of() {
        for count in 0..4 {
            let few: Few<u32> = (0..count).collect();
            assert_eq!(*few, (0..count).collect::<Vec<_>>());
            assert_eq!(few.into_iter().count() as u32, count);
        }
        assert_eq!(Few::from([1, 2]), [1, 2].into_iter().collect());
        assert_eq!(Few::<u32>::default(), [].into());
    }

    #[test]
    fn it_is_no_larger_than_the_one() {
        assert_eq!(size_of::<Few<NetworkAddress>>(), size_of::<NetworkAddress>());
    }
}
