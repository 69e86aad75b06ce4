CREATE TABLE kind (
    id bigint AUTO_INCREMENT PRIMARY KEY,
    small tinyint unsigned,
    big bigint unsigned,
    flags bit(8),
    mood enum('sad', 'happy'),
    tags set('x', 'y'),
    y year,
    at timestamp(3) NULL,
    f float,
    raw varbinary(8),
    ip inet6,
    doc json,
    price decimal(20, 4),
    on_off tinyint(1),
    one_bit bit(1),
    spent time
);
