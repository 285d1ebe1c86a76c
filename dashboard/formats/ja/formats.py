"""Japanese: `2026/11/22 14:03`. Tables have `2026-11-22 14:03`, which sorts as it reads."""

DATETIME_FORMAT = "Y/m/d H:i"
DATE_FORMAT = "Y/m/d"
TIME_FORMAT = "H:i"
SHORT_DATETIME_FORMAT = "Y-m-d H:i"
SHORT_DATE_FORMAT = "Y-m-d"
