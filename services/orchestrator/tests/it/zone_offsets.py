"""Offsets of time zones as Python's zoneinfo has them: where each begins and each change, to the second.

    zone_offsets.py FROM TO ZONE...    (seconds since 1970)

One line each: zone, seconds since 1970, offset in seconds.
"""

import sys
from datetime import datetime
from zoneinfo import ZoneInfo

HOUR = 3600


def main(begin: int, end: int, names: list[str]) -> None:
    for name in names:
        zone = ZoneInfo(name)

        def offset(second: int, zone: ZoneInfo = zone) -> int:
            return int(datetime.fromtimestamp(second, zone).utcoffset().total_seconds())

        known = offset(begin)
        print(name, begin, known)
        for hour in range(begin, end, HOUR):
            low, high = hour, hour + HOUR
            if offset(high) == known:
                continue
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == known else (low, middle)
            known = offset(high)
            print(name, high, known)


main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
