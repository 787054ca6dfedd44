"""python -m crm_sync, and the crm-sync command."""

from crm_sync.cli import main

if __name__ == "__main__":
    main()
