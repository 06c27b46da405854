mod codes;
mod golden;
mod matrices;
mod speed;
