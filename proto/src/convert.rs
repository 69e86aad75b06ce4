//! Between the model and its protobuf form: parsing is the border, so what comes out cannot be wrong in shape.
//!
//! Everything is converted by value, so that texts move instead of being copied. Nesting is bounded on both sides: by
//! prost, which decodes no message inside more than a hundred others, and by [`query::read_accesses`] and
//! [`query::mutation_accesses`], which refuse what prost would not decode.

mod filter;
mod operation;
mod schema;
mod value;

use query::Error;
use tonic::Status;

/// A required field, or the error that it is missing.
pub fn required<T>(part: Option<T>, name: &str) -> Result<T, Error> {
    part.ok_or_else(|| Error::Malformed(format!("{name} is missing")))
}

/// Converts each; the first that fails fails all.
pub fn all<T, U>(parts: Vec<T>) -> Result<Vec<U>, Error>
where
    U: TryFrom<T, Error = Error>,
{
    parts.into_iter().map(U::try_from).collect()
}

/// Converts each.
pub fn each<T: Into<U>, U>(parts: Vec<T>) -> Vec<U> {
    parts.into_iter().map(T::into).collect()
}

/// A message that the model cannot hold.
pub fn invalid(error: Error) -> Status {
    Status::invalid_argument(error.to_string())
}

/// The member of an enum `M` of the model for its number in a message, where it is one of the protobuf enum `W`.
pub fn member<W, M>(number: i32, field: &str) -> Result<M, Error>
where
    W: TryFrom<i32>,
    M: TryFrom<W, Error = Error>,
{
    match W::try_from(number) {
        Ok(member) => member.try_into(),
        Err(_) => Err(Error::Malformed(format!("{field} {number} is not known"))),
    }
}

/// An enum of the model whose members are those of a protobuf enum but the unspecified one.
macro_rules! members {
    ($model:ty, $wire:ty, $field:literal, { $($one:ident),+ $(,)? } $(, $other:pat => $as:expr)?) => {
        impl From<$model> for $wire {
            fn from(member: $model) -> Self {
                match member {
                    $(<$model>::$one => Self::$one,)+
                    $($other => $as,)?
                }
            }
        }

        impl TryFrom<$wire> for $model {
            type Error = query::Error;

            fn try_from(member: $wire) -> Result<Self, query::Error> {
                match member {
                    <$wire>::Unspecified => Err(query::Error::Malformed(concat!($field, " is missing").to_owned())),
                    $(<$wire>::$one => Ok(Self::$one),)+
                }
            }
        }
    };
}

use members;

#[cfg(test)]
mod tests;
