//! Between the model and its protobuf form: parsing is the border, so what comes out cannot be wrong in shape.
//!
//! Everything is converted by value, so that texts move instead of being copied. Nesting is bounded on both sides: by
//! prost, which decodes no message inside more than a hundred others, and by [`crate::read_touches`] and
//! [`crate::mutation_touches`], which refuse what prost would not decode.

mod catalog;
mod filter;
mod operation;
mod value;

use crate::Error;

/// What a message must have and has not.
fn required<T>(part: Option<T>, name: &str) -> Result<T, Error> {
    part.ok_or_else(|| Error::Malformed(format!("{name} is missing")))
}

/// Converts each; the first that fails fails all.
fn all<T, U>(parts: Vec<T>) -> Result<Vec<U>, Error>
where
    U: TryFrom<T, Error = Error>,
{
    parts.into_iter().map(U::try_from).collect()
}

/// Converts each.
fn each<T: Into<U>, U>(parts: Vec<T>) -> Vec<U> {
    parts.into_iter().map(T::into).collect()
}

/// An enum of the model whose members are those of a protobuf enum but the unspecified one.
macro_rules! members {
    ($model:ident, $wire:ty, $field:literal, { $($one:ident),+ $(,)? }) => {
        impl From<crate::$model> for $wire {
            fn from(member: crate::$model) -> Self {
                match member {
                    $(crate::$model::$one => Self::$one,)+
                }
            }
        }

        impl TryFrom<$wire> for crate::$model {
            type Error = crate::Error;

            fn try_from(member: $wire) -> Result<Self, crate::Error> {
                match member {
                    <$wire>::Unspecified => Err(crate::Error::Malformed(concat!($field, " is missing").to_owned())),
                    $(<$wire>::$one => Ok(Self::$one),)+
                }
            }
        }

        impl TryFrom<i32> for crate::$model {
            type Error = crate::Error;

            /// As the number that stands in a message.
            fn try_from(number: i32) -> Result<Self, crate::Error> {
                let member = <$wire>::try_from(number)
                    .map_err(|_| crate::Error::Malformed(format!("{} {number} is not known", $field)))?;
                member.try_into()
            }
        }

        impl From<crate::$model> for i32 {
            fn from(member: crate::$model) -> Self {
                <$wire>::from(member) as i32
            }
        }
    };
}
use members;

#[cfg(test)]
mod tests;
