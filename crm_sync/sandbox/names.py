"""The words the world is made of: invented companies, common names, real places."""

FIRST = (
    "Marta Devin Ines Oleg Priya Tomas Aisha Karl Noor Felix Grace Hugo Yuki Samuel Elena Omar Lucia Peter Mei "
    "Jonas Sofia Ravi Clara Mateo Hannah Viktor Amara Luis Freya Daniel Zoe Ahmed Nina Paul Leila Erik Rosa Ivan "
    "Maya Colin Adele Boris Chen Dina Emil Farah Gustav Helga Iris Jamal Keiko Lars Mona Nils Olga Pavel Quentin "
    "Rita Sanjay Thea Umar Vera Walter Ximena"
).split()
LAST = (
    "Oyelaran Castellanos Halvorsen Petrov Raman Novak Diallo Brandt Haddad Moreau Whitfield Lindqvist Tanaka "
    "Okafor Rossi Farouk Mendes Vogel Zhang Keller Andersen Iyer Dubois Alvarez Schmidt Kozlov Eze Herrera Larsen "
    "Cohen Nakamura Hassan Weber Laurent Rahimi Svensson Silva Popescu Chandra Murphy Fontaine Orlov Wang Nasser "
    "Fischer Aziz Bergman Krause Santos Bailey Ito Jensen Karim Olsen Sokolova Marek Lefevre Conti Gupta Nyberg "
    "Yusuf Volkova Huber Reyes"
).split()
COMPANY_FIRST = (
    "Orchard Kestrel Halyard Braeburn Copper North Silver Juniper Cedar Falcon Granite Harbor Indigo Jade "
    "Keystone Lantern Meridian Nimbus Onyx Prairie Quartz Raven Summit Timber Umber Vertex Willow Xenon Yarrow "
    "Zephyr Amber Beacon Cobalt Delta Ember Fjord Glacier Hazel Ivory Jasper Kite Lumen Maple Nova Opal Pioneer "
    "Quill Ridge Sable Tidal Union Vale Wharf Anchor Birch Crest Drift Echo Forge Grove Heron Isle Juno Knoll"
).split()
COMPANY_SECOND = (
    "Grid Freight Analytics Foods Systems Health Capital Logistics Works Labs Energy Media Textiles Robotics "
    "Partners Insurance Networks Motors Studios Farms Chemicals Software Supply Aviation Learning Retail Bank "
    "Design Marine Materials Pharma Security Travel Water Wireless Steel Paper Games Optics Credit Legal Events "
    "Homes Sports Tools Plastics Printing Care Mobility Packaging Hotels Instruments Staffing Research Devices "
    "Publishing Brewing Dental Solar Data Rail Consulting Ventures Group"
).split()
#: city, state, country
PLACES = (
    ("Leeds", "England", "United Kingdom"),
    ("Chicago", "Illinois", "United States"),
    ("Austin", "Texas", "United States"),
    ("Berlin", "Berlin", "Germany"),
    ("Lyon", "Auvergne-Rhône-Alpes", "France"),
    ("Toronto", "Ontario", "Canada"),
    ("São Paulo", "São Paulo", "Brazil"),
    ("Bengaluru", "Karnataka", "India"),
    ("Sydney", "New South Wales", "Australia"),
    ("Dublin", "Leinster", "Ireland"),
    ("Madrid", "Community of Madrid", "Spain"),
    ("Stockholm", "Stockholm County", "Sweden"),
    ("Boston", "Massachusetts", "United States"),
    ("Denver", "Colorado", "United States"),
    ("Kraków", "Lesser Poland", "Poland"),
    ("Nairobi", "Nairobi County", "Kenya"),
    ("Singapore", "", "Singapore"),
    ("Osaka", "Osaka Prefecture", "Japan"),
    ("Utrecht", "Utrecht", "Netherlands"),
    ("Zürich", "Zurich", "Switzerland"),
    ("New York", "New York", "United States"),
    ("San Francisco", "California", "United States"),
    ("Manchester", "England", "United Kingdom"),
    ("Mexico City", "Mexico City", "Mexico"),
)
#: title, seniority, department, function; all in Apollo's words (contracts/apollo-payloads/vocabularies.json)
JOBS = (
    ("VP Revenue Operations", "vp", "master_operations", "operations"),
    ("Chief Executive Officer", "c_suite", "c_suite", "entrepreneurship"),
    ("Chief Financial Officer", "c_suite", "c_suite", "finance"),
    ("Founder & CEO", "founder", "c_suite", "entrepreneurship"),
    ("Owner", "owner", "c_suite", "entrepreneurship"),
    ("Managing Partner", "partner", "master_legal", "legal"),
    ("Head of Demand Generation", "head", "master_marketing", "marketing"),
    ("Head of People", "head", "master_human_resources", "human_resources"),
    ("Director of Carrier Sales", "director", "master_sales", "sales"),
    ("Director of Engineering", "director", "master_engineering_technical", "engineering"),
    ("Director, Product Management", "director", "product_management", "product_management"),
    ("Marketing Manager", "manager", "master_marketing", "marketing"),
    ("Sales Manager", "manager", "master_sales", "sales"),
    ("IT Manager", "manager", "master_information_technology", "information_technology"),
    ("Customer Support Manager", "manager", "master_operations", "support"),
    ("Senior Software Engineer", "senior", "master_engineering_technical", "engineering"),
    ("Senior Accountant", "senior", "master_finance", "accounting"),
    ("Senior Account Executive", "senior", "master_sales", "sales"),
    ("Senior Data Scientist", "senior", "master_engineering_technical", "data_science"),
    ("Account Executive", "entry", "master_sales", "sales"),
    ("Software Engineer", "entry", "master_engineering_technical", "engineering"),
    ("Legal Counsel", "entry", "master_legal", "legal"),
    ("Recruiter", "entry", "master_human_resources", "human_resources"),
    ("Product Designer", "entry", "design", "arts_and_design"),
    ("Executive Assistant", "entry", "master_operations", "administrative"),
    ("Nurse Practitioner", "entry", "medical_health", "support"),
    ("Marketing Intern", "intern", "master_marketing", "marketing"),
    ("VP Sales", "vp", "master_sales", "sales"),
    ("VP Engineering", "vp", "master_engineering_technical", "engineering"),
    ("Business Development Manager", "manager", "master_sales", "business_development"),
    ("Communications Manager", "manager", "master_marketing", "media_and_commmunication"),
    ("Consultant", "entry", "consulting", "consulting"),
)
FREE_MAIL = ("gmail.com", "yahoo.com", "outlook.com", "web.de")
PLACEHOLDERS = ("[[unknown]]", "n/a", "-")
#: What people type into a title when they know better, or think so.
HUMAN_TITLES = ("Decision maker (ask for her)", "CRO", "Buyer EMEA", "met at the fair 2025", "Leiter Einkauf")
HUMAN_INDUSTRIES = ("Technology", "Manufacturing", "Other")
