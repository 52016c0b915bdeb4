"""The sending and the receiving end of each system, as somebody who knows the system would write them for speed."""
