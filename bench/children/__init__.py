"""What runs in the interpreters of the contenders: plain programs, which need nothing but the contender's package."""
