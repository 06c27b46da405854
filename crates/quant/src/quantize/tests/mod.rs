mod codes;
mod golden;
mod matrices;
mod rows;
mod speed;
