"""Tables of reports, as numbers, and the formats that write them."""
