mod conditions;
mod selections;
mod writes;
