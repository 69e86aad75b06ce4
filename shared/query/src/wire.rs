//! Between the model and its protobuf form: parsing is the border, so what comes out cannot be wrong in shape.
