"""python -m safe_support_ql.cli"""

from safe_support_ql.cli import main

if __name__ == "__main__":
    main()
